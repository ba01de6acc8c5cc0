/* The usual case of a tick in one pass: G.711 of a settled source and stream, in order, into the jitter buffer
 * (trunkline.media.engine.receive, .jitter), and the frame that is due out of it. What is not usual is left, untouched, to
 * those, which do the same and everything else; a packet that is left leaves all later ones of its leg. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FRAME 160
#define HEADER 12
#define MISSING (-32768)
#define PCMU 1 /* the kinds of payload types, engine.state */
#define PCMA 2
#define NOTHING (-1)
#define SEEN 64
#define TYPES 128
#define FADES 5
#define LINE 64 /* octets of a cache line */
#define SOON 4  /* legs ahead for which memory is fetched: the rings are too large for the nearer caches */

/* Functions that are compiled a second time for AVX2, which is taken where the processor has it. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

/* Arrays by leg, then numbers; filled by trunkline.media.native.compiled_tick, in this order. */
struct legs {
    const uint8_t *kinds, *latched, *source;
    const int64_t *source_port, *ssrc, *clock_scale;
    const uint8_t *receive, *started;
    int64_t *candidate, *last_rtp, *last_heard, *top_sequence;
    uint64_t *seen;
    int64_t *received, *transit;
    double *jitter, *max_jitter;
    int64_t *position, *newest, *gap, *stretched, *late_run;
    uint8_t *noise;
    int64_t *least, *held, *window;
    const int64_t *adjust;
    int16_t *ring, *heard, *last;
    float *energy;
    int32_t *missing;
    const uint8_t *coded;
    const int16_t *levels;
    const float *fade;
    int64_t size, most_dropout, sample_ns, rate, most_payload, room, pause, watched;
};

static int64_t apart(int64_t a, int64_t b) { return (int32_t)(uint32_t)(a - b); }

/* A frame of a ring will be needed. */
static void soon(const struct legs *g, int64_t r, int64_t stamp, int write) {
    const char *at = (const char *)(g->ring + (size_t)r * g->size + (stamp & (g->size - 1)));
    for (int k = 0; k <= 2 * FRAME / LINE; k++)
        if (write) __builtin_prefetch(at + k * LINE, 1);
        else __builtin_prefetch(at + k * LINE);
}

static uint32_t word(const uint8_t *p) { return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]; }

static inline __attribute__((always_inline)) int hear(const struct legs *g, int64_t r, const uint8_t *data, int64_t octets, const uint8_t *address,
                int64_t port, int64_t at, int64_t tick, int64_t now) {
    if (octets <= HEADER || data[0] != 0x80 || (data[1] >= 192 && data[1] <= 223)) return 0;
    int kind = g->kinds[r * TYPES + (data[1] & 127)];
    if ((kind != PCMU && kind != PCMA) || g->clock_scale[r] || !g->receive[r] || !g->started[r]) return 0;
    if (!g->latched[r] || port != g->source_port[r] || memcmp(address, g->source + r * 16, 16)) return 0;
    if (word(data + 8) != g->ssrc[r]) return 0;
    int64_t step = ((((data[2] << 8 | data[3]) - g->top_sequence[r] + 0x8000) & 0xFFFF)) - 0x8000;
    if (step <= 0 || step > g->most_dropout) return 0;
    int64_t stamp = word(data + 4), length = octets - HEADER, ahead = apart(stamp, g->position[r]);
    if (length > g->most_payload) length = g->most_payload;
    if (ahead < 0 || ahead > g->room || g->stretched[r] > 0) return 0;
    if (apart(g->newest[r], g->position[r]) <= 0 && (g->gap[r] >= g->pause || data[1] & 128)) return 0;

    g->candidate[r] = NOTHING;
    g->last_rtp[r] = g->last_heard[r] = tick;
    g->seen[r] = (step < SEEN ? g->seen[r] << step : 0) | 1;
    g->top_sequence[r] += step;
    g->received[r]++;

    int64_t transit = (uint32_t)(at / g->sample_ns - stamp), before = g->transit[r], off = llabs(apart(transit, before));
    if (before && off < g->rate) g->jitter[r] += ((double)off - g->jitter[r]) / 16;
    if (g->jitter[r] > g->max_jitter[r]) g->max_jitter[r] = g->jitter[r];
    g->transit[r] = transit;

    int64_t wait = (now - (at > 0 ? at : now)) / g->sample_ns;
    wait = wait < 0 ? 0 : wait > FRAME ? FRAME : wait;
    g->late_run[r] = g->noise[r] = 0;
    if (ahead + wait < g->held[r]) g->held[r] = ahead + wait;
    int64_t end = (uint32_t)(stamp + length);
    if (apart(end, g->newest[r]) > 0) g->newest[r] = end;
    const int16_t *level = g->levels + 256 * (kind - PCMU);
    int16_t *to = g->ring + (size_t)r * g->size;
    uint32_t from = (uint32_t)stamp & (g->size - 1), mask = (uint32_t)g->size - 1;
    if (from + length <= g->size)
        for (int64_t s = 0; s < length; s++) to[from + s] = level[data[HEADER + s]];
    else
        for (int64_t s = 0; s < length; s++) to[(from + s) & mask] = level[data[HEADER + s]];
    return 1;
}

/* Take the usual ones of `count` datagrams; the others' numbers go into `left`. Returns how many those are. */
WIDE int tl_hear(const struct legs *g, int count, int stride, const uint8_t *data, const int32_t *row, const int32_t *length,
            const uint8_t *address, const int32_t *port, const int64_t *at, int64_t tick, int64_t now, int64_t *left) {
    int lefts = 0;
    for (int i = 0; i < count; i++) {
        if (i + SOON < count) {
            soon(g, row[i + SOON], g->newest[row[i + SOON]], 1);
            for (int k = 0; k < 3; k++) __builtin_prefetch(data + (size_t)(i + SOON) * stride + k * LINE);
        }
        if ((lefts && row[left[lefts - 1]] == row[i]) ||
            !hear(g, row[i], data + (size_t)i * stride, length[i], address + (size_t)i * 16, port[i], at[i], tick, now))
            left[lefts++] = i;
    }
    return lefts;
}

/* Take the next frame of each row out of its ring, if it began and has audio; a lost part is concealed. Rows of another
 * kind go into `left`, those whose window is over into `due`; counts[0] and [1] become how many they are. */
WIDE void tl_frames(const struct legs *g, int n, const int64_t *rows, int64_t *left, int64_t *due, int32_t *counts) {
    counts[0] = counts[1] = 0;
    for (int i = 0; i < n; i++) {
        if (i + SOON < n) soon(g, rows[i + SOON], g->position[rows[i + SOON]], 1);
        int64_t r = rows[i], level = apart(g->newest[r], g->position[r]);
        int16_t *to = g->heard + (size_t)r * FRAME;
        if (!g->started[r]) {
            memset(to, 0, 2 * FRAME);
            g->energy[r] = 0;
            continue;
        }
        if (level <= 0 || g->adjust[r] || g->coded[r]) {
            left[counts[0]++] = r;
            continue;
        }
        int16_t *from = g->ring + (size_t)r * g->size, *last = g->last + (size_t)r * FRAME;
        int at = (int)(g->position[r] & (g->size - 1)), first = g->size - at < FRAME ? (int)g->size - at : FRAME, gone = 0;
        uint32_t low = 0, high = 0; /* of the sum of squares, which vectors of 32 bits hold */
        memcpy(to, from + at, 2 * (size_t)first);
        memcpy(to + first, from, 2 * (size_t)(FRAME - first));
        for (int s = 0; s < first; s++) from[at + s] = MISSING;
        for (int s = 0; s < FRAME - first; s++) from[s] = MISSING;
        for (int s = 0; s < FRAME; s++) gone += to[s] == MISSING;
        if (gone)
            for (int s = 0; s < FRAME; s++) to[s] = to[s] == MISSING ? 0 : to[s];
        else
            memcpy(last, to, 2 * FRAME);
        for (int s = 0; s < FRAME; s++) {
            uint32_t square = (uint32_t)((int32_t)to[s] * to[s]);
            low += square & 0xFFFF, high += square >> 16;
        }
        g->missing[r] = gone;
        g->energy[r] = (float)(((int64_t)high << 16) + low) / FRAME;
        g->position[r] = (uint32_t)(g->position[r] + FRAME);
        if (gone) {
            int64_t gap = ++g->gap[r];
            float gain = g->noise[r] ? 0 : g->fade[gap < FADES ? gap : FADES - 1];
            for (int s = 0; s < FRAME; s++) to[s] = to[s] ? to[s] : (int16_t)((float)last[s] * gain);
        } else {
            g->gap[r] = g->stretched[r] = 0;
        }
        if (level - FRAME < g->least[r]) g->least[r] = level - FRAME;
        if (++g->window[r] >= g->watched) due[counts[1]++] = r;
    }
}

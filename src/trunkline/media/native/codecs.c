/* Codecs with a memory, G.722 and Opus, for many legs in one call: plain C11, called by ctypes
 * (trunkline.media.native.coders), with the same behaviour in Python (trunkline.media.native.plain_coders).
 *
 * A leg that hears or speaks such a codec has a channel: its packets as they came, ordered by timestamp, the decoder,
 * the encoder. Packets are decoded when their audio is due, in their order, so that a lost one is known as such: Opus
 * takes it from the packet after it (in-band FEC) or conceals it; G.722 leaves it to the jitter buffer. Channels of
 * different legs share nothing, so that calls for different legs may run at once.
 *
 * G.722 is its lower band alone (see trunkline.rtp.g722). libopus is not linked: its functions are given by tl_opus.
 * Timestamps are in samples of 8 kHz. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FRAME 160
#define MISSING (-32768)
#define HEADER 12
#define PACKETS 64 /* kept of a leg; more push out the oldest */
#define PAYLOAD 1472
#define LONGEST 960     /* samples of a packet: 120 ms */
#define UNIT 20         /* samples: Opus conceals in multiples of 2.5 ms */
#define FEC_MOST 480    /* samples of a gap that the packet after it may fill, the part before its own frame concealed */
#define CONCEAL_MOST 800  /* samples in a row that are concealed: 100 ms ... */
#define PAUSE_MOST 4800   /* ... and while the sender has told that it is silent (DTX): 600 ms of its comfort noise */
#define DTX_OCTETS 2
#define G722 2 /* as in interface.py; 0 and 1 are G.711's laws */
#define OPUS 3

/* libopus */
#define RATE 8000
#define VOIP 2048
#define SET_BITRATE 4002
#define SET_COMPLEXITY 4010
#define SET_FEC 4012
#define SET_LOSS 4014
#define SET_SIGNAL 4024
#define SIGNAL_VOICE 3001
static struct {
    void *(*encoder_create)(int32_t, int, int, int *);
    int (*encoder_ctl)(void *, int, ...);
    int32_t (*encode)(void *, const int16_t *, int, uint8_t *, int32_t);
    void (*encoder_destroy)(void *);
    void *(*decoder_create)(int32_t, int, int *);
    int (*decode)(void *, const uint8_t *, int32_t, int16_t *, int, int);
    void (*decoder_destroy)(void *);
} opus;
static int32_t opus_bitrate, opus_complexity;

struct band {
    int32_t step, log, predicted, zero, a1, a2, r1, p1, p2, b[6], d[6];
};

struct channel {
    struct band in, out;
    void *decoder, *encoder;
    int32_t loss;      /* percent of ours that the peer loses */
    uint32_t cursor;   /* timestamp up to which is decoded */
    int started, fresh, run, pause; /* fresh: nothing decoded yet; run: samples concealed; pause: the sender is silent */
    uint32_t at[PACKETS];
    int16_t samples[PACKETS], length[PACKETS]; /* length 0: free */
    uint8_t kind[PACKETS], data[PACKETS][PAYLOAD];
};

void tl_opus(void **functions, int bitrate, int complexity) {
    memcpy(&opus, functions, sizeof opus);
    opus_bitrate = bitrate;
    opus_complexity = complexity;
}

static int32_t later(uint32_t a, uint32_t b) { return (int32_t)(a - b); }

/* -- G.722's lower band; names and tables as in trunkline.rtp.g722 */

static const int16_t q6[30] = {0,   35,  72,  110, 150, 190,  233,  276,  323,  370,  422,  473,  530,  587,  650,
                               714, 786, 858, 940, 1023, 1121, 1219, 1339, 1458, 1612, 1765, 1980, 2195, 2557, 2919};
static const int16_t qm6[64] = {
    -136,  -136,  -136,  -136,  -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232, -9360, -8576, -7856,
    -7192, -6576, -6000, -5456, -4944,  -4464,  -4008,  -3576,  -3168,  -2776,  -2400,  -2032,  -1688,  -1360, -1040, -728,
    24808, 21904, 19008, 16704, 14984,  13512,  12280,  11192,  10232,  9360,   8576,   7856,   7192,   6576,  6000,  5456,
    4944,  4464,  4008,  3576,  3168,   2776,   2400,   2032,   1688,   1360,   1040,   728,    432,    136,   -432,  -136};
static const int16_t qm4[16] = {0,     -20456, -12896, -8968, -6288, -4240, -2584, -1200,
                                20456, 12896,  8968,   6288,  4240,  2584,  1200,  0};
static const int16_t wl[16] = {-60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60};
static const int16_t ilb[32] = {2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543,
                                2599, 2656, 2714, 2774, 2834, 2896, 2960, 3025, 3091, 3158, 3228,
                                3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008};

static inline int32_t limit(int32_t v) { return v < -32768 ? -32768 : v > 32767 ? 32767 : v; }
static inline int32_t within(int32_t v, int32_t most) { return v < -most ? -most : v > most ? most : v; }

static void band_start(struct band *s) {
    memset(s, 0, sizeof *s);
    s->step = 32;
}

static inline void band_adapt(struct band *s, int code) {
    int32_t d = s->step * qm4[code] >> 15, log = (s->log * 127 >> 7) + wl[code];
    s->log = log = log < 0 ? 0 : log > 18432 ? 18432 : log;
    int shift = 8 - (log >> 11);
    int32_t level = ilb[log >> 6 & 31];
    s->step = (shift < 0 ? level << -shift : level >> shift) * 4;

    int32_t r = limit(s->predicted + d), p = limit(s->zero + d), four = limit(s->a1 * 4);
    int same1 = (p < 0) == (s->p1 < 0), same2 = (p < 0) == (s->p2 < 0);
    int32_t second = same1 ? (-four > 32767 ? 32767 : -four) : four;
    second = within((second >> 7) + (same2 ? 128 : -128) + (s->a2 * 32512 >> 15), 12288);
    s->a1 = within(limit((same1 ? 192 : -192) + (s->a1 * 32640 >> 15)), 15360 - second);
    s->a2 = second;
    int32_t turn = d == 0 ? 0 : 128, zero = 0, before = d;
    for (int i = 0; i < 6; i++) {
        int32_t old = s->d[i];
        s->b[i] = limit((((old < 0) == (d < 0)) ? turn : -turn) + (s->b[i] * 32640 >> 15));
        zero += s->b[i] * limit(2 * before) >> 15;
        s->d[i] = before;
        before = old;
    }
    int32_t poles = (s->a1 * limit(2 * r) >> 15) + (s->a2 * limit(2 * s->r1) >> 15);
    s->r1 = r, s->p2 = s->p1, s->p1 = p;
    s->zero = limit(zero);
    s->predicted = limit(limit(poles) + s->zero);
}

static void band_decode(struct band *s, const uint8_t *from, int n, int16_t *to) {
    for (int i = 0; i < n; i++) {
        int code = from[i] & 63;
        int32_t v = s->predicted + (s->step * qm6[code] >> 15);
        to[i] = (int16_t)((v < -16384 ? -16384 : v > 16383 ? 16383 : v) * 2);
        band_adapt(s, code >> 2);
    }
}

static void band_encode(struct band *s, const int16_t *from, int n, uint8_t *to) {
    for (int i = 0; i < n; i++) {
        int32_t d = limit((from[i] >> 1) - s->predicted), size = d >= 0 ? d : -(d + 1);
        int low = 1, high = 30; /* the first interval whose upper level is above */
        while (low < high) {
            int middle = (low + high) / 2;
            if (size >= (q6[middle] * s->step >> 12)) low = middle + 1; else high = middle;
        }
        int code = d >= 0 ? 62 - low : low < 3 ? 64 - low : 34 - low;
        to[i] = (uint8_t)(0xC0 | code);
        band_adapt(s, code >> 2);
    }
}

/* -- channels */

void *tl_channel_open(void) {
    struct channel *c = calloc(1, sizeof *c);
    if (c) band_start(&c->in), band_start(&c->out);
    return c;
}

void tl_channel_close(struct channel *c) {
    if (c->decoder) opus.decoder_destroy(c->decoder);
    if (c->encoder) opus.encoder_destroy(c->encoder);
    free(c);
}

/* Forget what came: another stream. */
void tl_channel_reset(struct channel *c) {
    if (c->decoder) opus.decoder_destroy(c->decoder);
    c->decoder = NULL;
    c->started = c->fresh = c->run = c->pause = 0;
    memset(c->length, 0, sizeof c->length);
    band_start(&c->in);
}

/* What the peer says that it loses, percent. */
void tl_channel_loss(struct channel *c, int percent) {
    c->loss = percent;
    if (c->encoder) opus.encoder_ctl(c->encoder, SET_LOSS, percent);
}

static void keep(struct channel *c, const uint8_t *data, int length, int samples, int kind, uint32_t at) {
    int place = 0;
    if (length <= 0 || length > PAYLOAD || samples <= 0) return;
    for (int k = 0; k < PACKETS; k++) {
        if (!c->length[k]) { place = k; break; }
        if (later(c->at[place], c->at[k]) > 0) place = k;
    }
    c->at[place] = at, c->kind[place] = (uint8_t)kind;
    c->samples[place] = (int16_t)samples, c->length[place] = (int16_t)length;
    memcpy(c->data[place], data, (size_t)length);
    if (!c->started || (c->fresh && later(c->cursor, at) > 0)) c->cursor = at;
    if (!c->started) c->started = c->fresh = 1;
}

/* Keep n payloads; all per element. */
void tl_keep(int n, const int64_t *rows, const int64_t *packet, const int64_t *offset, const int64_t *length,
             const int64_t *samples, const uint8_t *kind, const int64_t *timestamp, int stride, const uint8_t *data,
             struct channel **channels) {
    for (int i = 0; i < n; i++)
        keep(channels[rows[i]], data + (size_t)packet[i] * stride + offset[i], (int)length[i], (int)samples[i], kind[i],
             (uint32_t)timestamp[i]);
}

/* Samples into a ring at their timestamp, those from `position` on; `fill`: only where there are none. How many. */
static int into_ring(const int16_t *pcm, int n, uint32_t at, uint32_t position, int size, int16_t *ring, int fill) {
    int count = 0, skip = later(position, at);
    for (int s = skip > 0 ? skip : 0; s < n; s++) {
        int16_t *to = &ring[(at + s) & (size - 1)];
        if (fill && *to != MISSING) continue;
        *to = pcm[s] == MISSING ? MISSING + 1 : pcm[s];
        count++;
    }
    return count;
}

/* The packet that is next to be decoded, -1: none. Those whose time has gone are dropped. */
static int next_packet(struct channel *c) {
    int found = -1;
    for (int k = 0; k < PACKETS; k++) {
        if (!c->length[k]) continue;
        if (later(c->cursor, c->at[k] + c->samples[k]) >= 0) c->length[k] = 0;
        else if (found < 0 || later(c->at[found], c->at[k]) > 0) found = k;
    }
    return found;
}

static int decode_packet(struct channel *c, int k, int16_t *pcm) {
    int length = c->length[k], n = length < LONGEST ? length : LONGEST;
    c->length[k] = 0;
    c->run = c->fresh = 0;
    if (c->kind[k] == G722) {
        c->pause = 0;
        band_decode(&c->in, c->data[k], n, pcm);
        return n;
    }
    c->pause = length <= DTX_OCTETS;
    if (!c->decoder) c->decoder = opus.decoder_create(RATE, 1, &(int){0});
    return c->decoder ? opus.decode(c->decoder, c->data[k], length, pcm, LONGEST, 0) : -1;
}

/* Fill a gap before packet k (-1: nothing came yet) from `cursor` on. The samples made, 0 when it stays one. */
static int conceal(struct channel *c, int k, int16_t *pcm, int *recovered) {
    int gap = k >= 0 ? later(c->at[k], c->cursor) : FRAME, n;
    if (!c->decoder || (k >= 0 && c->kind[k] != OPUS)) return 0;
    gap -= gap % UNIT;
    *recovered = k >= 0 && gap > 0 && gap <= FEC_MOST;
    if (*recovered) return opus.decode(c->decoder, c->data[k], c->length[k], pcm, gap, 1);
    if (gap <= 0 || c->run >= (c->pause ? PAUSE_MOST : CONCEAL_MOST)) return 0;
    n = opus.decode(c->decoder, NULL, 0, pcm, gap < FRAME ? gap : FRAME, 0);
    if (n > 0) c->run += n;
    return n;
}

static int play(struct channel *c, uint32_t position, int size, int16_t *ring) {
    int16_t pcm[LONGEST];
    uint32_t end = position + FRAME;
    int concealed = 0;
    if (!c->started) return 0;
    if (later(position, c->cursor) > 0) c->cursor = position;
    for (int turn = 0; turn < PACKETS + LONGEST / UNIT && later(end, c->cursor) > 0; turn++) {
        int k = next_packet(c), n, recovered = 0;
        if (k >= 0 && later(c->at[k], c->cursor) <= 0) {
            uint32_t at = c->at[k];
            n = decode_packet(c, k, pcm);
            if (n > 0) into_ring(pcm, n, at, position, size, ring, 0);
            if (n > 0 && later(at + n, c->cursor) > 0) c->cursor = at + n;
            continue; /* one that cannot be decoded is one that did not come */
        }
        n = conceal(c, k, pcm, &recovered);
        if (n > 0) {
            int filled = into_ring(pcm, n, c->cursor, position, size, ring, 1);
            concealed += recovered ? 0 : filled;
            c->cursor += n;
        } else {
            c->cursor = k >= 0 && later(end, c->at[k]) > 0 ? c->at[k] : end;
        }
    }
    return concealed;
}

/* Decode what is due of each row's frame at `position` (per element) into its ring of `size` samples. concealed[row]
 * becomes how many samples of it are made up. Rows without a channel are left alone. */
void tl_play(int n, const int64_t *rows, const int64_t *position, int size, int16_t *ring, struct channel **channels,
             int32_t *concealed) {
    for (int i = 0; i < n; i++) {
        int64_t r = rows[i];
        if (channels[r]) concealed[r] = play(channels[r], (uint32_t)position[i], size, ring + (size_t)r * size);
    }
}

static int encode(struct channel *c, int kind, const int16_t *pcm, uint8_t *to, int room) {
    if (kind == G722) {
        band_encode(&c->out, pcm, FRAME, to);
        return FRAME;
    }
    if (!c->encoder) {
        c->encoder = opus.encoder_create(RATE, 1, VOIP, &(int){0});
        if (!c->encoder) return 0;
        opus.encoder_ctl(c->encoder, SET_BITRATE, opus_bitrate);
        opus.encoder_ctl(c->encoder, SET_COMPLEXITY, opus_complexity);
        opus.encoder_ctl(c->encoder, SET_SIGNAL, SIGNAL_VOICE);
        opus.encoder_ctl(c->encoder, SET_FEC, 1);
        opus.encoder_ctl(c->encoder, SET_LOSS, c->loss);
    }
    int n = opus.encode(c->encoder, pcm, FRAME, to, room);
    return n > 0 ? n : 0;
}

/* Write each row's RTP packet: header and encoded frame. */
void tl_code(int n, const int64_t *rows, const int16_t *pcm, const uint8_t *kind, const uint8_t *type,
             const uint8_t *marker, const int64_t *sequence, const int64_t *timestamp, const int64_t *ssrc,
             struct channel **channels, int stride, uint8_t *data, int32_t *length) {
    for (int i = 0; i < n; i++) {
        int64_t r = rows[i];
        uint8_t *to = data + (size_t)r * stride;
        uint32_t t = (uint32_t)timestamp[r], s = (uint32_t)ssrc[r];
        to[0] = 0x80;
        to[1] = type[r] | (marker[r] ? 0x80 : 0);
        to[2] = (uint8_t)(sequence[r] >> 8), to[3] = (uint8_t)sequence[r];
        to[4] = (uint8_t)(t >> 24), to[5] = (uint8_t)(t >> 16), to[6] = (uint8_t)(t >> 8), to[7] = (uint8_t)t;
        to[8] = (uint8_t)(s >> 24), to[9] = (uint8_t)(s >> 16), to[10] = (uint8_t)(s >> 8), to[11] = (uint8_t)s;
        int room = stride - HEADER < FRAME ? stride - HEADER : FRAME;
        length[r] = HEADER + encode(channels[r], kind[r], pcm + (size_t)r * FRAME, to + HEADER, room);
    }
}

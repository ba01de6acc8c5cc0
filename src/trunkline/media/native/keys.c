/* Keys in the audio of many legs: trunkline.rtp.dtmf.Detector.feed, whose theory of operation holds here, leg by leg. All
 * sums are whole numbers, so that both decide alike to the last bit. A window is left after its four low tones when none
 * of them holds enough of the energy: any key has TWIST, so that nothing is lost, and most sounds end there. */
#include <stdint.h>
#include <string.h>

#define FRAME 160
#define WINDOW 120
#define HOP 80
#define TAIL 40
#define ROW 128 /* of a table of tones: WINDOW, then zeros */
#define NONE (-1)

/* Functions that are compiled a second time for AVX2, which is taken where the processor has it. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

struct heard { /* dtmf.STATE */
    int16_t tail[TAIL];
    int8_t last;
    uint8_t run;
    int8_t current;
    uint8_t misses;
    float power, energy;
};

struct limits { /* dtmf.LIMITS */
    double quiet_peak, hits, enough, misses, least_power, share, low_share, twist, reverse_twist, stands_out,
        low_harmonic, high_harmonic, level;
};

struct found {
    int count;
    int64_t *row;
    int8_t *code;
    uint8_t *when;
};

static inline __attribute__((always_inline)) int64_t energy(const int16_t *window, const int16_t *tone) {
    int32_t even = 0, odd = 0;
    for (int i = 0; i < ROW; i++) even += (int32_t)window[i] * tone[i];
    for (int i = 0; i < ROW; i++) odd += (int32_t)window[i] * tone[ROW + i];
    return (int64_t)even * even + (int64_t)odd * odd;
}

/* The best of four; the second one's energy in `next`. */
static int best_of(const int64_t *four, int64_t *next) {
    int best = 0;
    for (int k = 1; k < 4; k++)
        if (four[k] > four[best]) best = k;
    *next = 0;
    for (int k = 0; k < 4; k++)
        if (k != best && four[k] > *next) *next = four[k];
    return best;
}

static inline __attribute__((always_inline)) int key_of(const int16_t *window, int64_t power, const int16_t *tones, const int16_t *harmonics,
                  const struct limits *is) {
    int64_t low[4], high[4], next_low, next_high;
    double all = (double)power;
    if (!(all > is->least_power)) return NONE;
    for (int k = 0; k < 4; k++) low[k] = energy(window, tones + 2 * ROW * k);
    int l = best_of(low, &next_low);
    if (!((double)low[l] > is->low_share * all)) return NONE;
    for (int k = 0; k < 4; k++) {
        int64_t below = energy(window, tones + 2 * ROW * (4 + k)), above = energy(window, tones + 2 * ROW * (8 + k));
        high[k] = below > above ? below : above;
    }
    int h = best_of(high, &next_high);
    double bl = (double)low[l], bh = (double)high[h];
    if (!((double)(low[l] + high[h]) > is->share * all && bl < is->twist * bh && bh < is->reverse_twist * bl)) return NONE;
    if (!(bl > is->stands_out * (double)next_low && bh > is->stands_out * (double)next_high)) return NONE;
    if (!((double)energy(window, harmonics + 2 * ROW * l) < is->low_harmonic * bl)) return NONE;
    if (!((double)energy(window, harmonics + 2 * ROW * (4 + h)) < is->high_harmonic * bh)) return NONE;
    return l * 4 + h;
}

static void tell(struct found *f, int64_t row, int code, int when) {
    f->row[f->count] = row, f->code[f->count] = (int8_t)code, f->when[f->count] = (uint8_t)when;
    f->count++;
}

/* Detector._step for one leg. */
static inline void step(struct heard *s, int64_t row, int code, float power, const struct limits *is, struct found *f, int when) {
    float before = s->power, level = (float)is->level, most = power > before ? power : before;
    int hit = code != NONE;
    int goes_on = hit && power > before * level && before > power * level && code == s->last;
    int run = goes_on ? s->run + 1 : hit;
    float sum = power + (goes_on ? s->energy : power > before ? before : power);
    s->energy = sum, s->last = (int8_t)code, s->power = power, s->run = (uint8_t)(run > 200 ? 200 : run);
    int current = s->current, misses = code == current ? 0 : (s->misses > 200 ? 200 : s->misses) + 1;
    int pressed = hit && run >= is->hits && sum >= (float)is->enough * most && code != current;
    int over = current != NONE && (misses >= is->misses || pressed);
    s->misses = (uint8_t)(pressed ? 0 : misses);
    s->current = (int8_t)(pressed ? code : over ? NONE : current);
    if (over) tell(f, row, current, when);
    if (pressed) tell(f, row, code, when + 1);
}

/* Take a frame of each row. What happened is left in row, code and when (0 and 2: a key ended in the first and the second
 * window, 1 and 3: one was pressed), at most four a leg; returns how many. */
WIDE int tl_keys(int n, const int64_t *rows, const int16_t *heard, struct heard *state, const int16_t *tones,
            const int16_t *harmonics, const struct limits *is, int64_t *row, int8_t *code, uint8_t *when) {
    struct found found = {0, row, code, when};
    int16_t audio[HOP + ROW] = {0};
    for (int i = 0; i < n; i++) {
        struct heard *s = &state[rows[i]];
        const int16_t *frame = heard + (size_t)rows[i] * FRAME;
        int16_t peak = 0;
        for (int k = 0; k < FRAME; k++) {
            int16_t size = frame[k] ^ (frame[k] >> 15); /* of a negative one: what is left without its sign, less 1 */
            peak = size > peak ? size : peak;
        }
        if (peak < is->quiet_peak && s->last == NONE && s->current == NONE) {
            s->power = 0;
        } else {
            int64_t part[5];
            int codes[2];
            memcpy(audio, s->tail, sizeof s->tail);
            memcpy(audio + TAIL, frame, 2 * FRAME);
            for (int p = 0; p < 5; p++) {
                part[p] = 0;
                for (int k = 0; k < TAIL; k++) part[p] += (int32_t)audio[p * TAIL + k] * audio[p * TAIL + k];
            }
            int64_t first = part[0] + part[1] + part[2], second = part[2] + part[3] + part[4];
            codes[0] = key_of(audio, first, tones, harmonics, is);
            codes[1] = key_of(audio + HOP, second, tones, harmonics, is);
            step(s, rows[i], codes[0], (float)first, is, &found, 0);
            step(s, rows[i], codes[1], (float)second, is, &found, 2);
        }
        memcpy(s->tail, frame + FRAME - TAIL, sizeof s->tail);
    }
    return found.count;
}

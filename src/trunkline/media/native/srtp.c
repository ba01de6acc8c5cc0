/* SRTP and SRTCP with AES_CM_128_HMAC_SHA1_80 and _32 (RFC 3711, RFC 4568 section 6.2), for the packets of many legs in
 * one call. AES and SHA-1 by the processor's own instructions where it has them; else AES in bit slices, which takes the
 * same time whatever the key. The indices of the packets live in the caller's memory, so that a successor goes on. */
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#define HARDWARE 1
#else
#define HARDWARE 0
#endif

#define HEADER 12
#define ROUNDS 10
#define SHA 20
#define CHUNK 16   /* blocks of key stream made at once */
#define STREAMS 4  /* SSRCs of one sender whose indices are kept; srtp.py and state.py say the same */
#define WINDOW 64  /* packets behind the newest of which is known whether they came */
#define RTCP_TAG 10 /* whatever the suite (RFC 4568 section 6.2.2) */
#define MOST_RTCP 0x7fffffff

struct keys {
    uint8_t cipher[16 * (ROUNDS + 1)]; /* round keys; as bit planes without AES instructions */
    uint32_t inner[5], outer[5];       /* SHA-1 after the first block of either half of HMAC */
    uint8_t salt[16];
};
struct context { /* the keys of one direction of one leg */
    struct keys rtp, rtcp;
    int32_t tag, reserved;
};

int tl_srtp_context_bytes(void) { return sizeof(struct context); }

/* -- what the processor can do ------------------------------------------------------------------------------------ */

static int features = -1; /* bit 0: AES, bit 1: SHA */

/* Use the processor's instructions (1) or do without (0); keys made before are of no use after. Returns what is used. */
int tl_srtp_hardware(int wanted) {
    features = 0;
#if HARDWARE
    unsigned a, b, c, d;
    if (wanted && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_AES) && (c & bit_SSE4_1)) {
        features = 1;
        if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29))) features |= 2;
    }
#else
    (void)wanted;
#endif
    return features;
}

static int has(int bit) {
    if (features < 0) tl_srtp_hardware(1);
    return features & bit;
}

/* -- AES ---------------------------------------------------------------------------------------------------------- */

static uint8_t product(uint8_t a, uint8_t b) { /* in GF(2^8), modulo x^8+x^4+x^3+x+1 */
    uint8_t sum = 0;
    for (int k = 0; k < 8; k++) {
        sum ^= a & (uint8_t)-(b & 1);
        a = (uint8_t)(a << 1) ^ (0x1b & (uint8_t)-(a >> 7));
        b >>= 1;
    }
    return sum;
}

static uint8_t substitute(uint8_t x) { /* FIPS 197 section 5.1.1: the inverse, x^254, then the affine map */
    uint8_t power = x, inverse = 1;
    for (int k = 0; k < 7; k++) {
        power = product(power, power);
        inverse = product(inverse, power);
    }
    uint8_t y = inverse;
    for (int k = 1; k <= 4; k++) y ^= (uint8_t)(inverse << k | inverse >> (8 - k));
    return y ^ 0x63;
}

static void expand(const uint8_t *key, uint8_t *rounds) { /* FIPS 197 section 5.2 */
    uint8_t constant = 1;
    memcpy(rounds, key, 16);
    for (int at = 16; at < 16 * (ROUNDS + 1); at += 4) {
        uint8_t word[4];
        memcpy(word, rounds + at - 4, 4);
        if (at % 16 == 0) {
            uint8_t first = word[0];
            for (int k = 0; k < 3; k++) word[k] = substitute(word[k + 1]);
            word[3] = substitute(first);
            word[0] ^= constant;
            constant = product(constant, 2);
        }
        for (int k = 0; k < 4; k++) rounds[at + k] = rounds[at - 16 + k] ^ word[k];
    }
}

/* Bit slices: plane k holds bit k of every octet; a lane is a block, a bit of it an octet (4 * column + row). */
typedef uint16_t plane __attribute__((vector_size(2 * CHUNK)));

static void to_planes(const uint8_t *octets, uint16_t *planes) {
    for (int k = 0; k < 8; k++) {
        planes[k] = 0;
        for (int j = 0; j < 16; j++) planes[k] |= (uint16_t)((octets[j] >> k & 1) << j);
    }
}

/* Inverses are taken in GF(2^8) as pairs over GF(2^4): an octet is a*w + b with w^2 = w + V, in GF(2^4) y^4 = y + 1 and
 * V = y^3 + y^2. INTO takes an octet's bits to those of b, then a; BACK takes them to the affine map (FIPS 197 section
 * 5.1.1) of the octet. Row k tells which bits make bit k. The base is y = 0x5d, w = 0xaf. */
static const uint8_t INTO[8] = {0x91, 0xbc, 0x4a, 0xc4, 0xae, 0x72, 0x0c, 0xa0};
static const uint8_t BACK[8] = {0x33, 0x21, 0x87, 0x53, 0x0d, 0x4e, 0xb0, 0x96};

static inline void map(const uint8_t *rows, const plane *in, plane *out) {
    for (int k = 0; k < 8; k++) {
        plane sum = in[0] ^ in[0];
        for (int j = 0; j < 8; j++)
            if (rows[k] >> j & 1) sum ^= in[j];
        out[k] = sum;
    }
}

static inline void multiply(const plane *a, const plane *b, plane *out) {
    plane c[7];
    memset(c, 0, sizeof c);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) c[i + j] ^= a[i] & b[j];
    out[0] = c[0] ^ c[4];
    out[1] = c[1] ^ c[4] ^ c[5];
    out[2] = c[2] ^ c[5] ^ c[6];
    out[3] = c[3] ^ c[6];
}

static inline void square(const plane *a, plane *out) {
    plane one = a[1];
    out[0] = a[0] ^ a[2];
    out[1] = a[2];
    out[2] = one ^ a[3];
    out[3] = a[3];
}

static void sub_bytes(plane *s) {
    plane t[8], norm[4], two[4], four[4], eight[4];
    plane *b = t, *a = t + 4;
    map(INTO, s, t);
    square(a, two); /* the norm: V*a^2 + a*b + b^2 */
    multiply(a, b, norm);
    square(b, four);
    norm[0] ^= four[0] ^ two[1] ^ two[2];
    norm[1] ^= four[1] ^ two[1] ^ two[3];
    norm[2] ^= four[2] ^ two[0] ^ two[2];
    norm[3] ^= four[3] ^ two[0] ^ two[1] ^ two[3];
    square(norm, two); /* its inverse: its 14th power */
    square(two, four);
    square(four, eight);
    multiply(two, four, norm);
    multiply(norm, eight, two);
    for (int k = 0; k < 4; k++) b[k] ^= a[k];
    multiply(b, two, b);
    multiply(a, two, a);
    map(BACK, t, s);
    s[0] = ~s[0], s[1] = ~s[1], s[5] = ~s[5], s[6] = ~s[6]; /* 0x63 */
}

static void shift_rows(plane *s) {
    for (int k = 0; k < 8; k++) {
        plane x = s[k];
        s[k] = (x & 0x1111) | ((x >> 4 | x << 12) & 0x2222) | ((x >> 8 | x << 8) & 0x4444) |
               ((x >> 12 | x << 4) & 0x8888);
    }
}

static void mix_columns(plane *s) {
    plane next[8], sum[8];
    for (int k = 0; k < 8; k++) {
        next[k] = (s[k] >> 1 & 0x7777) | (s[k] << 3 & 0x8888); /* the row below */
        sum[k] = s[k] ^ next[k];
    }
    for (int k = 0; k < 8; k++) {
        plane doubled = sum[(k + 7) & 7];
        if (k == 1 || k == 3 || k == 4) doubled ^= sum[7];
        s[k] = doubled ^ next[k] ^ (sum[k] >> 2 & 0x3333) ^ (sum[k] << 2 & 0xcccc);
    }
}

static void add_key(plane *s, const uint16_t *key) {
    for (int k = 0; k < 8; k++) s[k] ^= key[k];
}

/* Key stream of CHUNK blocks, whose counter (16 bits) begins at `from`. */
static void stream_sliced(const uint8_t *cipher, const uint8_t *iv, int from, uint8_t *out) {
    uint16_t keys[8 * (ROUNDS + 1)], start[8];
    plane s[8];
    memcpy(keys, cipher, sizeof keys);
    to_planes(iv, start);
    for (int k = 0; k < 8; k++)
        for (int b = 0; b < CHUNK; b++)
            s[k][b] = start[k] | (uint16_t)(((from + b) >> 8 >> k & 1) << 14) | (uint16_t)(((from + b) >> k & 1) << 15);
    add_key(s, keys);
    for (int round = 1; round <= ROUNDS; round++) {
        sub_bytes(s);
        shift_rows(s);
        if (round < ROUNDS) mix_columns(s);
        add_key(s, keys + 8 * round);
    }
    for (int b = 0; b < CHUNK; b++)
        for (int half = 0; half < 2; half++) {
            uint64_t x = 0, t; /* eight octets as rows of bits, turned into columns */
            for (int k = 0; k < 8; k++) x |= (uint64_t)(s[k][b] >> 8 * half & 0xff) << 8 * k;
            t = (x ^ x >> 7) & 0x00aa00aa00aa00aa, x ^= t ^ t << 7;
            t = (x ^ x >> 14) & 0x0000cccc0000cccc, x ^= t ^ t << 14;
            t = (x ^ x >> 28) & 0x00000000f0f0f0f0, x ^= t ^ t << 28;
            for (int j = 0; j < 8; j++) out[16 * b + 8 * half + j] = (uint8_t)(x >> 8 * j);
        }
}

#if HARDWARE
__attribute__((target("aes,sse4.1"))) static void stream_aes(const uint8_t *cipher, const uint8_t *iv, int from,
                                                             int blocks, uint8_t *out) {
    const __m128i *key = (const void *)cipher;
    __m128i start = _mm_loadu_si128((const void *)iv);
    for (int b = 0; b < blocks; b += 4) {
        __m128i x[4];
        for (int k = 0; k < 4; k++) {
            int n = from + b + k;
            x[k] = _mm_xor_si128(_mm_insert_epi16(start, (n & 0xff) << 8 | (n >> 8 & 0xff), 7), _mm_loadu_si128(key));
        }
        for (int round = 1; round < ROUNDS; round++) {
            __m128i now = _mm_loadu_si128(key + round);
            for (int k = 0; k < 4; k++) x[k] = _mm_aesenc_si128(x[k], now);
        }
        for (int k = 0; k < 4; k++)
            _mm_storeu_si128((void *)(out + 16 * (b + k)), _mm_aesenclast_si128(x[k], _mm_loadu_si128(key + ROUNDS)));
    }
}
#endif

static void prepare(const uint8_t *key, uint8_t *cipher) {
    uint8_t rounds[16 * (ROUNDS + 1)];
    uint16_t planes[8];
    expand(key, rounds);
    for (int round = 0; round <= ROUNDS; round++) {
        if (has(1)) {
            memcpy(cipher + 16 * round, rounds + 16 * round, 16);
        } else {
            to_planes(rounds + 16 * round, planes);
            memcpy(cipher + 16 * round, planes, 16);
        }
    }
}

/* Exclusive or with the key stream of an IV whose last two octets are zero (AES-CM). */
static void crypt(const uint8_t *cipher, const uint8_t *iv, uint8_t *data, int length) {
    uint8_t stream[16 * CHUNK];
    for (int at = 0; at < length; at += 16 * CHUNK) {
        int now = length - at < 16 * CHUNK ? length - at : 16 * CHUNK;
#if HARDWARE
        if (has(1)) stream_aes(cipher, iv, at / 16, (now + 15) / 16, stream);
        else
#endif
            stream_sliced(cipher, iv, at / 16, stream);
        for (int k = 0; k < now; k++) data[at + k] ^= stream[k];
    }
}

/* -- HMAC-SHA1 ---------------------------------------------------------------------------------------------------- */

static uint32_t big(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_big(uint8_t *p, uint32_t x) {
    p[0] = (uint8_t)(x >> 24), p[1] = (uint8_t)(x >> 16), p[2] = (uint8_t)(x >> 8), p[3] = (uint8_t)x;
}

static uint32_t left(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void block_plain(uint32_t *s, const uint8_t *p) { /* FIPS 180-4 section 6.1.2 */
    uint32_t w[80], a = s[0], b = s[1], c = s[2], d = s[3], e = s[4];
    for (int t = 0; t < 16; t++) w[t] = big(p + 4 * t);
    for (int t = 16; t < 80; t++) w[t] = left(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
    for (int t = 0; t < 80; t++) {
        uint32_t f = t < 20 ? (d ^ (b & (c ^ d))) + 0x5a827999
                   : t < 40 ? (b ^ c ^ d) + 0x6ed9eba1
                   : t < 60 ? ((b & c) | (d & (b | c))) + 0x8f1bbcdc
                            : (b ^ c ^ d) + 0xca62c1d6;
        f += left(a, 5) + e + w[t];
        e = d, d = c, c = left(b, 30), b = a, a = f;
    }
    s[0] += a, s[1] += b, s[2] += c, s[3] += d, s[4] += e;
}

#if HARDWARE
__attribute__((target("sha,sse4.1"))) static void block_sha(uint32_t *s, const uint8_t *p) {
    const __m128i turn = _mm_set_epi64x(0x0001020304050607, 0x08090a0b0c0d0e0f);
    __m128i begin = _mm_shuffle_epi32(_mm_loadu_si128((const void *)s), 0x1b), e = _mm_set_epi32((int)s[4], 0, 0, 0);
    __m128i w[20], now = begin, before = begin;
    for (int i = 0; i < 4; i++) w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const void *)(p + 16 * i)), turn);
    for (int i = 4; i < 20; i++)
        w[i] = _mm_sha1msg2_epu32(_mm_xor_si128(_mm_sha1msg1_epu32(w[i - 4], w[i - 3]), w[i - 2]), w[i - 1]);
#define FOUR(i, f)                                                                          \
    do {                                                                                    \
        __m128i next = i ? _mm_sha1nexte_epu32(before, w[i]) : _mm_add_epi32(e, w[i]);      \
        before = now;                                                                       \
        now = _mm_sha1rnds4_epu32(now, next, f);                                            \
    } while (0)
    for (int i = 0; i < 5; i++) FOUR(i, 0);
    for (int i = 5; i < 10; i++) FOUR(i, 1);
    for (int i = 10; i < 15; i++) FOUR(i, 2);
    for (int i = 15; i < 20; i++) FOUR(i, 3);
#undef FOUR
    e = _mm_sha1nexte_epu32(before, e);
    now = _mm_add_epi32(now, begin);
    _mm_storeu_si128((void *)s, _mm_shuffle_epi32(now, 0x1b));
    s[4] = (uint32_t)_mm_extract_epi32(e, 3);
}
#endif

static void block(uint32_t *s, const uint8_t *p) {
#if HARDWARE
    if (has(2)) {
        block_sha(s, p);
        return;
    }
#endif
    block_plain(s, p);
}

/* SHA-1 of one block that `s` has taken, then data and `more` octets (at most 4). */
static void finish(uint32_t *s, const uint8_t *data, int length, const uint8_t *extra, int more) {
    uint8_t last[128];
    int at = 0, rest, end;
    for (; length - at >= 64; at += 64) block(s, data + at);
    rest = length - at;
    memset(last, 0, sizeof last);
    memcpy(last, data + at, (size_t)rest);
    memcpy(last + rest, extra, (size_t)more);
    last[rest + more] = 0x80;
    end = rest + more + 9 > 64 ? 128 : 64;
    put_big(last + end - 4, 8 * (uint32_t)(64 + length + more));
    for (at = 0; at < end; at += 64) block(s, last + at);
}

static void hmac(const struct keys *keys, const uint8_t *data, int length, const uint8_t *extra, int more,
                 uint8_t *out) {
    uint32_t s[5];
    memcpy(s, keys->inner, sizeof s);
    finish(s, data, length, extra, more);
    for (int k = 0; k < 5; k++) put_big(out + 4 * k, s[k]);
    memcpy(s, keys->outer, sizeof s);
    finish(s, out, SHA, out, 0);
    for (int k = 0; k < 5; k++) put_big(out + 4 * k, s[k]);
}

static int differs(const uint8_t *a, const uint8_t *b, int length) { /* in the same time, wherever it does */
    int sum = 0;
    for (int k = 0; k < length; k++) sum |= a[k] ^ b[k];
    return sum;
}

/* -- keys --------------------------------------------------------------------------------------------------------- */

static void derive(const uint8_t *cipher, const uint8_t *salt, int label, uint8_t *out, int length) {
    uint8_t iv[16] = {0};
    memcpy(iv, salt, 14);
    iv[7] ^= (uint8_t)label;
    memset(out, 0, (size_t)length);
    crypt(cipher, iv, out, length);
}

static void session(const uint8_t *cipher, const uint8_t *salt, int label, struct keys *keys) {
    static const uint32_t first[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    uint8_t key[16], secret[64], pad[64];
    derive(cipher, salt, label, key, sizeof key);
    prepare(key, keys->cipher);
    memset(secret, 0, sizeof secret);
    derive(cipher, salt, label + 1, secret, SHA);
    memcpy(keys->inner, first, sizeof first);
    memcpy(keys->outer, first, sizeof first);
    for (int k = 0; k < 64; k++) pad[k] = secret[k] ^ 0x36;
    block(keys->inner, pad);
    for (int k = 0; k < 64; k++) pad[k] = secret[k] ^ 0x5c;
    block(keys->outer, pad);
    memset(keys->salt, 0, sizeof keys->salt);
    derive(cipher, salt, label + 2, keys->salt, 14);
}

/* The session keys of a master key (16 octets) and salt (14) (RFC 3711 section 4.3). `tag`: octets of RTP's. */
void tl_srtp_keys(uint8_t *at, const uint8_t *key, const uint8_t *salt, int tag) {
    struct context *context = (void *)at;
    uint8_t cipher[16 * (ROUNDS + 1)];
    prepare(key, cipher);
    session(cipher, salt, 0, &context->rtp);
    session(cipher, salt, 3, &context->rtcp);
    context->tag = tag;
}

/* -- packets ------------------------------------------------------------------------------------------------------ */

static void set_iv(const struct keys *keys, uint32_t ssrc, int64_t index, uint8_t *iv) { /* RFC 3711 section 4.1.1 */
    memcpy(iv, keys->salt, 16);
    for (int k = 0; k < 4; k++) iv[4 + k] ^= (uint8_t)(ssrc >> (24 - 8 * k));
    for (int k = 0; k < 6; k++) iv[8 + k] ^= (uint8_t)((uint64_t)index >> (40 - 8 * k));
}

/* The index of a sequence number, given the highest so far (RFC 3711 section 3.3.1); negative: there is none. */
static int64_t index_of(int64_t highest, int sequence) {
    if (highest < 0) return sequence;
    int64_t rollover = highest >> 16;
    int newest = (int)(highest & 0xffff);
    if (newest < 0x8000) rollover -= sequence - newest > 0x8000;
    else rollover += newest - 0x8000 > sequence;
    return rollover < 0 ? -1 : rollover << 16 | sequence;
}

/* Where the payload of an RTP packet begins, 0 if it is none. */
static int payload_at(const uint8_t *packet, int length) {
    if (length < HEADER || packet[0] >> 6 != 2) return 0;
    int at = HEADER + 4 * (packet[0] & 15);
    if (packet[0] & 0x10) {
        if (at + 4 > length) return 0;
        at += 4 + 4 * (packet[at + 2] << 8 | packet[at + 3]);
    }
    return at <= length ? at : 0;
}

/* The indices of up to STREAMS senders, the one heard last first. */
struct streams {
    int64_t *ssrc, *index;
    uint64_t *window;
};

static struct streams streams_of(int64_t row, int64_t *ssrc, int64_t *index, uint64_t *window) {
    struct streams s = {ssrc + STREAMS * row, index + STREAMS * row, window + STREAMS * row};
    return s;
}

static int find(struct streams s, int64_t ssrc) { /* STREAMS: a new one */
    int k = 0;
    while (k < STREAMS && s.ssrc[k] != ssrc) k++;
    return k;
}

static int replayed(struct streams s, int k, int64_t index) {
    if (k == STREAMS || index > s.index[k]) return 0;
    int64_t behind = s.index[k] - index;
    return behind >= WINDOW || (s.window[k] >> behind & 1);
}

static void came(struct streams s, int k, int64_t ssrc, int64_t index) {
    int64_t highest = index;
    uint64_t window = 1;
    if (k < STREAMS) {
        int64_t ahead = index - s.index[k];
        if (ahead > 0) {
            window = ahead < WINDOW ? s.window[k] << ahead | 1 : 1;
        } else {
            highest = s.index[k];
            window = s.window[k] | (uint64_t)1 << -ahead;
        }
    }
    for (int j = k < STREAMS ? k : STREAMS - 1; j > 0; j--)
        s.ssrc[j] = s.ssrc[j - 1], s.index[j] = s.index[j - 1], s.window[j] = s.window[j - 1];
    s.ssrc[0] = ssrc, s.index[0] = highest, s.window[0] = window;
}

static int open_rtp(const struct context *context, struct streams s, uint8_t *packet, int length, int64_t *refused) {
    int at = payload_at(packet, length), end = length - context->tag;
    uint8_t rollover[4], tag[SHA], iv[16];
    if (!at || end < at) return refused[0]++, 0;
    uint32_t ssrc = big(packet + 8);
    int k = find(s, ssrc);
    int64_t index = index_of(k < STREAMS ? s.index[k] : -1, packet[2] << 8 | packet[3]);
    if (index < 0 || replayed(s, k, index)) return refused[1]++, 0;
    put_big(rollover, (uint32_t)(index >> 16));
    hmac(&context->rtp, packet, end, rollover, 4, tag);
    if (differs(tag, packet + end, context->tag)) return refused[0]++, 0;
    came(s, k, ssrc, index);
    set_iv(&context->rtp, ssrc, index, iv);
    crypt(context->rtp.cipher, iv, packet + at, end - at);
    return end;
}

static int open_rtcp(const struct context *context, struct streams s, uint8_t *packet, int length, int64_t *refused) {
    int end = length - RTCP_TAG - 4;
    uint8_t tag[SHA], iv[16];
    if (end < 8 || packet[0] >> 6 != 2) return refused[0]++, 0;
    uint32_t ssrc = big(packet + 4), word = big(packet + end);
    int k = find(s, ssrc);
    int64_t index = word & MOST_RTCP;
    if (replayed(s, k, index)) return refused[1]++, 0;
    hmac(&context->rtcp, packet, end + 4, packet, 0, tag);
    if (!(word >> 31) || differs(tag, packet + end + 4, RTCP_TAG)) return refused[0]++, 0;
    came(s, k, ssrc, index);
    set_iv(&context->rtcp, ssrc, index, iv);
    crypt(context->rtcp.cipher, iv, packet + 8, end - 8);
    return end;
}

/* Authenticate and decrypt in place the packets of those of n datagrams whose row is `on`; their length becomes 0 when
 * they are refused: refused[0] counts those that are not authentic, refused[1] those that came before. */
void tl_unprotect(int n, const int32_t *rows, int rtcp, int stride, uint8_t *data, int32_t *length, const uint8_t *on,
                  const uint8_t *contexts, int64_t *ssrc, int64_t *index, uint64_t *window, int64_t *refused) {
    for (int i = 0; i < n; i++) {
        int64_t r = rows[i];
        if (!on[r]) continue;
        const struct context *context = (const struct context *)contexts + r;
        struct streams s = streams_of(r, ssrc, index, window);
        length[i] = (rtcp ? open_rtcp : open_rtp)(context, s, data + (size_t)i * stride, length[i], refused);
    }
}

/* Encrypt and authenticate in place the RTP packets of those rows that are `on`. `last` gets each index before its
 * packet is made; an index that was used, or has no room, makes no packet (length 0). */
void tl_protect(int n, const int64_t *rows, int stride, uint8_t *data, int32_t *length, const uint8_t *on,
                const uint8_t *contexts, int64_t *last) {
    for (int i = 0; i < n; i++) {
        int64_t r = rows[i];
        if (!on[r]) continue;
        const struct context *context = (const struct context *)contexts + r;
        uint8_t *packet = data + (size_t)r * stride, rollover[4], tag[SHA], iv[16];
        int at = payload_at(packet, length[r]), end = length[r];
        int64_t index = index_of(last[r], packet[2] << 8 | packet[3]);
        length[r] = 0;
        if (!at || index <= last[r] || index >> 48 || end + context->tag > stride) continue;
        last[r] = index;
        set_iv(&context->rtp, big(packet + 8), index, iv);
        crypt(context->rtp.cipher, iv, packet + at, end - at);
        put_big(rollover, (uint32_t)(index >> 16));
        hmac(&context->rtp, packet, end, rollover, 4, tag);
        memcpy(packet + end, tag, (size_t)context->tag);
        length[r] = end + context->tag;
    }
}

/* The same for one RTCP packet with room for RTCP_TAG + 4 octets more; returns its length, 0 for none. */
int tl_protect_rtcp(uint8_t *packet, int length, const uint8_t *at, int64_t *last) {
    const struct context *context = (const void *)at;
    uint8_t tag[SHA], iv[16];
    int64_t index = *last + 1;
    if (length < 8 || index > MOST_RTCP) return 0;
    *last = index;
    set_iv(&context->rtcp, big(packet + 4), index, iv);
    crypt(context->rtcp.cipher, iv, packet + 8, length - 8);
    put_big(packet + length, 0x80000000u | (uint32_t)index);
    hmac(&context->rtcp, packet, length + 4, packet, 0, tag);
    memcpy(packet + length + 4, tag, RTCP_TAG);
    return length + 4 + RTCP_TAG;
}

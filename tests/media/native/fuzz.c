/* Random packets for srtp.c and codecs.c, to be built with -fsanitize=address,undefined (test_fuzz.py). Every array is as
 * long as the engine's and allocated on its own, so that one octet too far is seen. `fuzz <seconds> <seed> [libopus]`;
 * exit status 1, with a line, when a promise is broken. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <time.h>

#include "codecs.c"
#undef HEADER
#include "srtp.c"

#define LEGS 4
#define BATCH 16
#define STRIDE 1472 /* interface.PACKET_BYTES */
#define SEND 200    /* room of a packet that is sent, with its tag */
#define RING 4096
#define ACCEPTED 640 /* jitter.MAX_PAYLOAD */
#define RTCP_SIZE 200

static uint64_t dice_state;

static uint32_t dice(uint32_t sides) {
    dice_state ^= dice_state << 13, dice_state ^= dice_state >> 7, dice_state ^= dice_state << 17;
    return (uint32_t)((dice_state >> 16) % sides);
}

static void scribble(uint8_t *to, int length) {
    for (int k = 0; k < length; k++) to[k] = (uint8_t)dice(256);
}

static void *array(size_t bytes) {
    void *made = calloc(1, bytes);
    if (!made) abort();
    return made;
}

static void broken(const char *what) {
    printf("broken: %s\n", what);
    exit(1);
}

/* An RTP or RTCP packet: whole, absurd (contributing sources, extension, padding), or noise. Its length. */
static int packet_of(uint8_t *to, int most, int sequence) {
    int length = dice(4) ? 12 + (int)dice(most - 12) : (int)dice(most + 1);
    scribble(to, length);
    if (length < 12) return length;
    if (dice(8)) to[0] = (uint8_t)(0x80 | (dice(3) ? 0 : dice(64)));
    to[2] = (uint8_t)(sequence >> 8), to[3] = (uint8_t)sequence;
    memset(to + 8, (int)dice(6), 4); /* a few senders: more than STREAMS */
    if (!dice(4) && length >= 20) to[0] |= 0x10, to[14 + 4 * (to[0] & 15) < length ? 14 : 12] = 0xff;
    return length;
}

static int next_sequence(int before) {
    switch (dice(8)) {
    case 0: return (int)dice(65536);
    case 1: return (before + 0x8000) & 0xffff;
    case 2: return before;
    case 3: return (before - (int)dice(70)) & 0xffff;
    default: return (before + 1 + (int)dice(3)) & 0xffff;
    }
}

struct srtp_state {
    uint8_t *on, *in, *out;
    int64_t *ssrc, *index, *last, *rtcp_last, *refused;
    uint64_t *window;
};

static void fuzz_srtp(struct srtp_state *s) {
    int size = tl_srtp_context_bytes();
    if (!dice(64)) {
        uint8_t key[16], salt[14];
        int r = (int)dice(LEGS), tag = dice(2) ? 10 : 4;
        tl_srtp_hardware((int)dice(2));
        for (int leg = 0; leg < LEGS; leg++) { /* what a sender of ours would hear of itself */
            if (leg != r && dice(2)) continue;
            scribble(key, sizeof key), scribble(salt, sizeof salt);
            tl_srtp_keys(s->in + (size_t)leg * size, key, salt, tag);
            tl_srtp_keys(s->out + (size_t)leg * size, key, salt, tag);
            s->on[leg] = (uint8_t)(dice(8) > 0);
            s->last[leg] = s->rtcp_last[leg] = dice(3) ? -1 : (int64_t)dice(1 << 30) << dice(19);
            for (int k = 0; k < STREAMS; k++) s->ssrc[leg * STREAMS + k] = -1;
        }
    }
    int32_t *rows = array(4 * BATCH), *length = array(4 * BATCH), before[BATCH], n = (int32_t)dice(BATCH + 1);
    uint8_t *data = array((size_t)BATCH * STRIDE), *sent = array((size_t)LEGS * SEND);
    static int sequence;
    for (int i = 0; i < n; i++) {
        rows[i] = (int32_t)dice(LEGS);
        sequence = next_sequence(sequence);
        length[i] = before[i] = packet_of(data + (size_t)i * STRIDE, STRIDE, sequence);
    }
    tl_unprotect(n, rows, (int)dice(2), STRIDE, data, length, s->on, s->in, s->ssrc, s->index, s->window, s->refused);
    for (int i = 0; i < n; i++)
        if (length[i] < 0 || length[i] > before[i]) broken("a datagram grew");

    int64_t *which = array(8 * LEGS), was[LEGS];
    int32_t *made = array(4 * LEGS);
    for (int r = 0; r < LEGS; r++) {
        which[r] = r, was[r] = s->last[r];
        made[r] = packet_of(sent + (size_t)r * SEND, dice(3) ? 172 : SEND, next_sequence((int)(was[r] & 0xffff)));
        if (made[r] < 4) made[r] = 0;
    }
    tl_protect(LEGS, which, SEND, sent, made, s->on, s->out, s->last);
    for (int r = 0; r < LEGS; r++) {
        if (!s->on[r]) continue;
        if (made[r] > SEND) broken("a packet is longer than its room");
        if (made[r] && s->last[r] <= was[r]) broken("an index was used twice");
        if (!made[r] && s->last[r] != was[r]) broken("an index was lost");
    }

    int octets = (int)dice(RTCP_SIZE + 1);
    uint8_t *report = array((size_t)octets + RTCP_TAG + 4);
    scribble(report, octets);
    int64_t rtcp_before = s->rtcp_last[0];
    int done = tl_protect_rtcp(report, octets, s->out, &s->rtcp_last[0]);
    if (done && s->rtcp_last[0] <= rtcp_before) broken("an index of RTCP was used twice");
    if (s->rtcp_last[0] > MOST_RTCP && done) broken("RTCP went on with a key that was used up");
    free(rows), free(length), free(data), free(sent), free(which), free(made), free(report);
}

static void fuzz_codecs(struct channel **channels, int16_t *ring, int64_t *position, int with_opus, uint8_t last[][STRIDE],
                        int32_t *last_length) {
    int n = (int)dice(BATCH + 1);
    int64_t *rows = array(8 * BATCH), *packet = array(8 * BATCH), *offset = array(8 * BATCH), *length = array(8 * BATCH),
            *samples = array(8 * BATCH), *timestamp = array(8 * BATCH);
    uint8_t *kind = array(BATCH), *data = array((size_t)BATCH * STRIDE);
    for (int i = 0; i < n; i++) {
        int r = (int)dice(LEGS);
        rows[i] = r, packet[i] = i, kind[i] = with_opus && dice(2) ? OPUS : G722;
        uint8_t *to = data + (size_t)i * STRIDE;
        offset[i] = 12 + (int64_t)dice(40);
        length[i] = 1 + (int64_t)dice(dice(4) ? 170 : (uint32_t)(STRIDE - offset[i]));
        if (kind[i] == OPUS && last_length[r] > 0 && dice(3)) { /* what our encoder made, perhaps cut or bent */
            length[i] = last_length[r];
            memcpy(to + offset[i], last[r], (size_t)length[i]);
            if (!dice(3)) length[i] = 1 + (int64_t)dice((uint32_t)length[i]);
            if (!dice(3)) to[offset[i] + dice((uint32_t)length[i])] ^= (uint8_t)(1 << dice(8));
        } else {
            scribble(to + offset[i], (int)length[i]);
        }
        samples[i] = kind[i] == G722 ? length[i] : 20 * (int64_t)dice(49);
        if (samples[i] > ACCEPTED && kind[i] == G722) samples[i] = ACCEPTED;
        timestamp[i] = (position[r] + (dice(16) ? (int64_t)dice(1200) - 300 : (int64_t)dice(0xffffffff))) & 0xffffffff;
    }
    tl_keep(n, rows, packet, offset, length, samples, kind, timestamp, STRIDE, data, channels);

    int64_t every[LEGS], marks[LEGS];
    int32_t concealed[LEGS], made[LEGS];
    uint8_t laws[LEGS], types[LEGS], *out = array((size_t)LEGS * 172);
    int16_t *pcm = array(2 * LEGS * FRAME);
    scribble((uint8_t *)pcm, 2 * LEGS * FRAME);
    for (int r = 0; r < LEGS; r++) every[r] = r, marks[r] = position[r], laws[r] = with_opus ? OPUS : G722, types[r] = 9;
    tl_play(LEGS, every, position, RING, ring, channels, concealed);
    for (int r = 0; r < LEGS; r++)
        if (concealed[r] < 0 || concealed[r] > 20 * LONGEST) broken("more was made up than a frame can have");
    tl_code(LEGS, every, pcm, laws, types, types, marks, marks, marks, channels, 172, out, made);
    for (int r = 0; r < LEGS; r++) {
        if (made[r] < 12 || made[r] > 172) broken("an encoded packet is longer than its room");
        last_length[r] = made[r] - 12;
        memcpy(last[r], out + (size_t)r * 172 + 12, (size_t)last_length[r]);
        position[r] = (position[r] + (dice(200) ? FRAME : (int64_t)dice(0xffffffff))) & 0xffffffff;
        if (!dice(500)) tl_channel_reset(channels[r]);
        if (!dice(500)) tl_channel_loss(channels[r], (int)dice(101));
        if (!dice(3000)) tl_channel_close(channels[r]), channels[r] = tl_channel_open();
    }
    free(rows), free(packet), free(offset), free(length), free(samples), free(timestamp), free(kind), free(data), free(out);
    free(pcm);
}

static int load_opus(const char *path) {
    static const char *names[] = {"opus_encoder_create", "opus_encoder_ctl",    "opus_encode",        "opus_encoder_destroy",
                                  "opus_decoder_create", "opus_decode", "opus_decoder_destroy"};
    void *library = dlopen(path, RTLD_NOW), *functions[7];
    for (int k = 0; k < 7; k++)
        if (!library || !(functions[k] = dlsym(library, names[k]))) return 0;
    tl_opus(functions, 28000, 1);
    return 1;
}

int main(int count, char **words) {
    if (count < 3) return 2;
    time_t end = time(NULL) + atoi(words[1]);
    dice_state = strtoull(words[2], NULL, 10) * 2654435761u + 88172645463325252u;
    int with_opus = count > 3 && load_opus(words[3]), size = tl_srtp_context_bytes();
    struct srtp_state s = {array(LEGS), array((size_t)LEGS * size), array((size_t)LEGS * size),
                           array(8 * LEGS * STREAMS), array(8 * LEGS * STREAMS), array(8 * LEGS), array(8 * LEGS),
                           array(16), array(8 * LEGS * STREAMS)};
    struct channel *channels[LEGS];
    int16_t *ring = array(2 * LEGS * RING);
    int64_t position[LEGS] = {0, 0x7fffff00, 0xffffff00, 12345};
    static uint8_t last[LEGS][STRIDE];
    int32_t last_length[LEGS] = {0};
    uint8_t key[30];
    for (int r = 0; r < LEGS; r++) {
        channels[r] = tl_channel_open();
        scribble(key, sizeof key);
        tl_srtp_keys(s.in + (size_t)r * size, key, key + 16, 10), tl_srtp_keys(s.out + (size_t)r * size, key, key + 16, 10);
        s.on[r] = 1, s.last[r] = s.rtcp_last[r] = -1;
    }
    long rounds = 0;
    for (; time(NULL) < end; rounds++) {
        fuzz_srtp(&s);
        fuzz_codecs(channels, ring, position, with_opus, last, last_length);
    }
    for (int r = 0; r < LEGS; r++) tl_channel_close(channels[r]);
    free(ring), free(s.on), free(s.in), free(s.out), free(s.ssrc), free(s.index), free(s.last), free(s.rtcp_last);
    free(s.refused), free(s.window);
    printf("%ld rounds, Opus %d\n", rounds, with_opus);
    return 0;
}

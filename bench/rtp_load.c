/* Two-way audio for many legs: sends 50 packets a second to each of the ports given on standard input, spread evenly over
 * the 20 ms, and measures what comes back, told apart by its source port.
 *
 *     rtp_load SECONDS SOCKETS [coded TYPE STEP FILE | srtp] [audio FILE] [loss PER_MILLE] [rtcp] < legs
 *
 * A leg is a line "PORT PROMPT". Prints one line of JSON. What is sent:
 *
 * - G.711 noise; or the payloads of FILE (each an octet of length, then the payload), one after the other and again, each
 *   leg from another one on, with this payload type and timestamp step; or noise as SRTP, by keys of zeros.
 * - `audio`: keys. A tenth of the legs presses telephone-events, a tenth tones, 100 ms every 4 s: 2 to 9 in turn, from
 *   2 + leg % 8 on. FILE: the tones of 2 to 9, 800 octets of PCMU each, then prompts of 80,000 octets. What comes back on a
 *   leg with a PROMPT (a number, -1: none) must be that prompt, again and again, octet by octet, from any place on.
 * - `loss`: so many packets of a thousand are left out. `rtcp`: a sender report of each leg every 5 s, to the next port.
 *
 * A packet is late when it came more than 15 ms before or after its time (that of its RTP timestamp, from the median of the
 * leg's first second on), by the kernel's arrival time.
 *
 * Build: cc -O3 -o rtp_load rtp_load.c ../src/trunkline/media/native/srtp.c */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define LEGS 10000
#define BATCH 64
#define FRAME 160
#define SIZE 172
#define TAG_ROOM 16
#define SLICES 20 /* of 1 ms */
#define BINS 2000 /* of 0.1 ms */
#define PAYLOADS 100000
#define FIRST 50 /* packets by which a leg's pace is known */
#define LATE_S 0.015
#define KEYS 8
#define KEY_FRAMES 5
#define EVENT_FRAMES (KEY_FRAMES + 2) /* the end comes three times */
#define EVENT_TYPE 101
#define PRESS_EVERY 200 /* packets */
#define PROMPT 80000
#define REPORT_EVERY 5000 /* ms */
#define WARM_S 1.5
#define NO_KEYS_S 1.0 /* at the end, so that all are heard */

struct leg {
    int port, prompt;
    uint16_t sequence, last_sequence;
    uint32_t stamp, came, sent, octets, press_stamp, first_stamp;
    double last, firsts[FIRST], pace;
    int first;
    int64_t index, at; /* of SRTP; octet of the prompt of sequence number 0, -1: not known */
    long packets, presses, extended;
};

static struct leg leg[LEGS];
static int leg_of[65536], legs, type, step = FRAME, payloads, secure, per_mille, reports, prompts;
static uint8_t *payload[PAYLOADS], *audio, context[1024];
static uint64_t gaps[BINS + 1];
static long lost, late, judged, left_out, compared, mismatched, pressed[2], heard_reports;
static double stop_keys;

void tl_srtp_keys(uint8_t *, const uint8_t *, const uint8_t *, int);
void tl_protect(int, const int64_t *, int, uint8_t *, int32_t *, const uint8_t *, const uint8_t *, int64_t *);

static double seconds_of(struct timespec t) { return t.tv_sec + t.tv_nsec * 1e-9; }

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return seconds_of(t);
}

static void word(uint8_t *p, uint32_t v) { p[0] = v >> 24, p[1] = v >> 16, p[2] = v >> 8, p[3] = v; }

static void load(const char *path) {
    FILE *f = fopen(path, "rb");
    int length;
    while (f && payloads < PAYLOADS && (length = getc(f)) > 0 && length <= SIZE - 12) {
        payload[payloads] = malloc(length + 1);
        payload[payloads][0] = length;
        if (fread(payload[payloads] + 1, 1, length, f) == (size_t)length) payloads++;
    }
    if (!payloads) exit(2);
}

static void load_audio(const char *path) {
    FILE *f = fopen(path, "rb");
    long size = 0;
    if (f) fseek(f, 0, SEEK_END), size = ftell(f), rewind(f);
    prompts = (int)((size - KEYS * KEY_FRAMES * FRAME) / PROMPT);
    audio = malloc(size > 0 ? size : 1);
    if (size <= 0 || fread(audio, 1, size, f) != (size_t)size) exit(2);
}

/* The audio or event of a key that leg n is pressing; the payload's length, 0 when it presses none. */
static int press(struct leg *g, int n, uint8_t *p, double t) {
    int tenth = n % 10, frame = (g->packets + n * 7) % PRESS_EVERY, frames = tenth ? KEY_FRAMES : EVENT_FRAMES;
    if (!audio || tenth > 1 || frame >= frames || g->packets < PRESS_EVERY / 2) return 0;
    if (frame && !g->press_stamp) return 0; /* it began before the keys did */
    if (!frame) {
        if (t > stop_keys) return g->press_stamp = 0;
        g->press_stamp = g->stamp | 1;
        g->presses++;
        pressed[tenth]++;
    }
    int key = (int)((n + g->presses - 1) % KEYS);
    if (tenth) {
        memcpy(p + 12, audio + (key * KEY_FRAMES + frame) * FRAME, FRAME);
        return FRAME;
    }
    int last = frame >= KEY_FRAMES - 1, duration = FRAME * (last ? KEY_FRAMES : frame + 1);
    p[1] = EVENT_TYPE | (frame ? 0 : 0x80);
    word(p + 4, g->press_stamp);
    p[12] = 2 + key, p[13] = last ? 0x80 | 10 : 10, p[14] = duration >> 8, p[15] = duration;
    return 4;
}

/* One packet; its size. */
static int fill(uint8_t *p, int n, double t) {
    struct leg *g = &leg[n];
    uint16_t s = g->sequence++;
    p[0] = 0x80, p[1] = type, p[2] = s >> 8, p[3] = s & 255;
    word(p + 4, g->stamp);
    word(p + 8, 0x11000000 | n);
    int32_t length = press(g, n, p, t);
    if (!length) {
        const uint8_t *from = payloads ? payload[(n * 37 + s) % payloads] : NULL;
        if (from) memcpy(p + 12, from + 1, from[0]);
        length = from ? from[0] : FRAME;
    }
    g->stamp += step, g->packets++, g->octets += length;
    length += 12;
    if (secure) {
        int64_t row = 0;
        uint8_t on = 1;
        tl_protect(1, &row, SIZE + TAG_ROOM, p, &length, &on, context, &g->index);
    }
    return length;
}

static void address(struct sockaddr_in *to, int port) {
    to->sin_family = AF_INET, to->sin_addr.s_addr = htonl(INADDR_LOOPBACK), to->sin_port = htons(port);
}

static long send_slice(int *fds, int sockets, int slice, double t) {
    static uint8_t noise[BATCH][SIZE], data[BATCH][SIZE + TAG_ROOM];
    struct mmsghdr m[BATCH];
    struct iovec io[BATCH];
    struct sockaddr_in to[BATCH];
    long sent = 0;
    if (!noise[0][12])
        for (int i = 0; i < BATCH; i++)
            for (int j = 12; j < SIZE; j++) noise[i][j] = 0x30 | (rand() & 0x8f); /* loud: nothing is skipped as silence */
    memset(m, 0, sizeof m);
    memset(to, 0, sizeof to);
    for (int k = 0; k < sockets; k++) {
        int n = 0;
        for (int i = legs * slice / SLICES; i < legs * (slice + 1) / SLICES; i++) {
            if (i % sockets != k) continue;
            if (!payloads) memcpy(data[n], noise[n], SIZE);
            io[n] = (struct iovec){data[n], fill(data[n], i, t)};
            if (rand() % 1000 < per_mille) {
                left_out++;
                continue;
            }
            leg[i].sent++;
            address(&to[n], leg[i].port);
            m[n].msg_hdr.msg_iov = &io[n], m[n].msg_hdr.msg_iovlen = 1;
            m[n].msg_hdr.msg_name = &to[n], m[n].msg_hdr.msg_namelen = sizeof to[n];
            if (++n == BATCH) break;
        }
        int r = n ? sendmmsg(fds[k], m, n, 0) : 0;
        if (r > 0) sent += r;
    }
    return sent;
}

/* The sender reports (RFC 3550 6.4.1, 6.5) that are due in a millisecond. */
static long send_reports(int fd, long slot) {
    long sent = 0;
    for (int i = (int)(slot % REPORT_EVERY); i < legs; i += REPORT_EVERY) {
        uint8_t p[44] = {0x80, 200, 0, 6};
        struct sockaddr_in to = {0};
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        word(p + 4, 0x11000000 | i);
        word(p + 8, (uint32_t)(t.tv_sec + 2208988800u));
        word(p + 12, (uint32_t)((double)t.tv_nsec * 4.294967296));
        word(p + 16, leg[i].stamp), word(p + 20, leg[i].sent), word(p + 24, leg[i].octets);
        p[28] = 0x81, p[29] = 202, p[31] = 3; /* SDES: the SSRC, CNAME "load", the end */
        word(p + 32, 0x11000000 | i);
        p[36] = 1, p[37] = 4, memcpy(p + 38, "load", 4);
        address(&to, leg[i].port + 1);
        sent += sendto(fd, p, sizeof p, 0, (void *)&to, sizeof to) == sizeof p;
    }
    return sent;
}

/* Whether a frame is that of the prompt which follows the one before. */
static void compare(struct leg *g, const uint8_t *frame, int length) {
    const uint8_t *prompt = audio + KEYS * KEY_FRAMES * FRAME + (long)g->prompt * PROMPT;
    if (g->at < 0) { /* find the place; the prompt is noise, so there is one */
        for (long at = 0; at < PROMPT && g->at < 0; at++) {
            int same = 0;
            while (same < length && prompt[(at + same) % PROMPT] == frame[same]) same++;
            if (same == length) g->at = (at + PROMPT - g->extended * FRAME % PROMPT) % PROMPT;
        }
    }
    compared++;
    long at = (g->at + g->extended * FRAME) % PROMPT;
    int bad = g->at < 0 || length != FRAME;
    for (int i = 0; i < length && !bad; i++) bad = prompt[(at + i) % PROMPT] != frame[i];
    mismatched += bad;
}

static int order(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Whether a packet came at its time. */
static void pace(struct leg *g, double at, uint32_t stamp) {
    if (!g->first) g->first_stamp = stamp;
    double off = at - (double)(int32_t)(stamp - g->first_stamp) / (step * 50.0);
    if (g->first < FIRST) {
        g->firsts[g->first++] = off;
        if (g->first < FIRST) return;
        qsort(g->firsts, FIRST, sizeof off, order);
        g->pace = g->firsts[FIRST / 2];
        return;
    }
    off -= g->pace;
    judged++;
    late += off > LATE_S || off < -LATE_S;
}

static double arrival(struct msghdr *h) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            return seconds_of(t);
        }
    return 0;
}

static void take(struct leg *g, const uint8_t *p, int length, double at, int warm) {
    uint16_t s = p[2] << 8 | p[3], ahead = s - g->last_sequence;
    uint32_t stamp = (uint32_t)p[4] << 24 | p[5] << 16 | p[6] << 8 | p[7];
    if (g->came) g->extended += (int16_t)ahead;
    if (warm && g->came) {
        double off = (at - g->last - 0.020) * 1e4;
        if (off < 0) off = -off;
        gaps[off > BINS ? BINS : (int)off]++;
        if (ahead > 1 && ahead < 1000) lost += ahead - 1;
        pace(g, at, stamp);
        if (g->prompt >= 0 && g->prompt < prompts && (p[1] & 127) == 0) compare(g, p + 12, length - 12);
    }
    g->last = at, g->last_sequence = s, g->came++;
}

static long receive(int *fds, int sockets, int warm) {
    static uint8_t data[BATCH][512], control[BATCH][64];
    struct mmsghdr m[BATCH];
    struct iovec io[BATCH];
    struct sockaddr_in from[BATCH];
    long got = 0;
    memset(m, 0, sizeof m);
    for (int i = 0; i < BATCH; i++) {
        io[i] = (struct iovec){data[i], 512};
        m[i].msg_hdr.msg_iov = &io[i], m[i].msg_hdr.msg_iovlen = 1, m[i].msg_hdr.msg_name = &from[i];
        m[i].msg_hdr.msg_control = control[i];
    }
    for (int k = 0; k < sockets; k++) {
        for (int i = 0; i < BATCH; i++) m[i].msg_hdr.msg_namelen = sizeof from[i], m[i].msg_hdr.msg_controllen = 64;
        int r = recvmmsg(fds[k], m, BATCH, MSG_DONTWAIT, NULL);
        for (int i = 0; i < r; i++) {
            int n = leg_of[ntohs(from[i].sin_port)];
            got++;
            if (n >= 0 && m[i].msg_len >= 12) take(&leg[n], data[i], m[i].msg_len, arrival(&m[i].msg_hdr), warm);
        }
    }
    return got;
}

static int open_socket(void) {
    int size = 8 << 20, fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &(int){1}, sizeof(int));
    struct sockaddr_in any = {0};
    address(&any, 0);
    if (bind(fd, (void *)&any, sizeof any)) exit(1);
    return fd;
}

static void print(long sent, long sent_reports) {
    uint64_t total = 0, sum = 0;
    double at[3] = {0.5, 0.99, 0.999}, point[3] = {0};
    long packets = 0;
    int silent = 0;
    for (int b = 0; b <= BINS; b++) total += gaps[b];
    for (int b = 0, q = 0; b <= BINS; b++)
        for (sum += gaps[b]; q < 3 && sum >= total * at[q]; q++) point[q] = b / 10.0;
    for (int i = 0; i < legs; i++) packets += leg[i].came, silent += !leg[i].came;
    printf("{\"legs\": %d, \"sent\": %ld, \"left_out\": %ld, \"received\": %ld, \"lost\": %ld, \"silent\": %d, "
           "\"judged\": %ld, \"late\": %ld, \"compared\": %ld, \"mismatched\": %ld, \"pressed\": [%ld, %ld], "
           "\"reports\": [%ld, %ld], \"jitter_ms\": [%.1f, %.1f, %.1f]}\n", legs, sent, left_out, packets, lost, silent,
           judged, late, compared, mismatched, pressed[0], pressed[1], sent_reports, heard_reports, point[0], point[1],
           point[2]);
}

int main(int count, char **argument) {
    if (count < 3) return 2;
    double seconds = atof(argument[1]);
    int sockets = atoi(argument[2]), fds[256];
    long sent = 0, sent_reports = 0;
    for (int i = 3; i < count; i++) {
        if (!strcmp(argument[i], "coded") && i + 3 < count)
            type = atoi(argument[i + 1]), step = atoi(argument[i + 2]), load(argument[i + 3]), i += 3;
        else if (!strcmp(argument[i], "srtp")) secure = 1, tl_srtp_keys(context, (uint8_t[16]){0}, (uint8_t[14]){0}, 10);
        else if (!strcmp(argument[i], "audio") && i + 1 < count) load_audio(argument[++i]);
        else if (!strcmp(argument[i], "loss") && i + 1 < count) per_mille = atoi(argument[++i]);
        else if (!strcmp(argument[i], "rtcp")) reports = 1;
        else return 2;
    }
    if (sockets < 1 || sockets > 256) return 2;
    memset(leg_of, -1, sizeof leg_of);
    for (struct leg *g = leg; legs < LEGS && scanf("%d %d", &g->port, &g->prompt) == 2; g++) {
        leg_of[g->port & 65535] = legs++;
        g->sequence = rand() & 0x7fff, g->stamp = rand(), g->index = g->at = -1;
    }
    for (int k = 0; k < sockets; k++) fds[k] = open_socket();
    int control = open_socket();
    sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){10}); /* where it may: its own pauses are nobody's lateness */
    double start = now();
    stop_keys = start + seconds - NO_KEYS_S;
    for (long slot = 0;;) {
        double t = now();
        if (t - start > seconds) break;
        if (t >= start + slot * 0.001) {
            sent += send_slice(fds, sockets, slot % SLICES, t);
            if (reports) sent_reports += send_reports(control, slot);
            slot++;
            continue;
        }
        uint8_t report[512];
        while (recv(control, report, sizeof report, MSG_DONTWAIT) > 0) heard_reports++;
        if (!receive(fds, sockets, t > start + WARM_S)) nanosleep(&(struct timespec){0, 200000}, NULL);
    }
    print(sent, sent_reports);
    return 0;
}

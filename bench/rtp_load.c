/* Two-way audio for many legs: sends 50 packets a second to each of the ports given on standard input, spread evenly over
 * the 20 ms, and measures what comes back, told apart by its source port.
 *
 *     rtp_load SECONDS SOCKETS [TYPE STEP FILE | srtp] < ports        prints one line of JSON
 *
 * G.711 noise, or the payloads of FILE (each an octet of length, then the payload), one after the other and again, each
 * leg from another one on, with this payload type and timestamp step; or noise as SRTP, by keys of zeros.
 *
 * Build: cc -O3 -o rtp_load rtp_load.c ../src/trunkline/media/native/srtp.c */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define LEGS 10000
#define BATCH 64
#define SIZE 172
#define TAG_ROOM 16
#define SLICES 20 /* of 1 ms */
#define BINS 2000 /* of 0.1 ms */

#define PAYLOADS 100000

static int ports[LEGS], leg_of[65536];
static int type, step = 160, payloads;
static uint8_t *payload[PAYLOADS];
static uint16_t sequence[LEGS], last_sequence[LEGS];
static uint32_t stamp[LEGS], came[LEGS];
static double last[LEGS];
static uint64_t gaps[BINS + 1];
static int secure;
static uint8_t context[1024];
static int64_t last_index[LEGS];

void tl_srtp_keys(uint8_t *, const uint8_t *, const uint8_t *, int);
void tl_protect(int, const int64_t *, int, uint8_t *, int32_t *, const uint8_t *, const uint8_t *, int64_t *);

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

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

/* One packet; its size. */
static int fill(uint8_t *p, int leg) {
    uint16_t s = sequence[leg]++;
    uint32_t t = stamp[leg];
    stamp[leg] += step;
    p[0] = 0x80, p[1] = type, p[2] = s >> 8, p[3] = s & 255;
    p[4] = t >> 24, p[5] = t >> 16, p[6] = t >> 8, p[7] = t;
    p[8] = 0x11, p[9] = 0, p[10] = leg >> 8, p[11] = leg;
    if (secure) {
        int64_t row = 0;
        int32_t length = SIZE;
        uint8_t on = 1;
        tl_protect(1, &row, SIZE + TAG_ROOM, p, &length, &on, context, &last_index[leg]);
        return length;
    }
    if (!payloads) return SIZE;
    const uint8_t *from = payload[(leg * 37 + s) % payloads];
    memcpy(p + 12, from + 1, from[0]);
    return 12 + from[0];
}

static long send_slice(int *fds, int sockets, int legs, int slice) {
    static uint8_t data[BATCH][SIZE + TAG_ROOM];
    static int ready;
    struct mmsghdr m[BATCH];
    struct iovec io[BATCH];
    struct sockaddr_in to[BATCH];
    long sent = 0;
    if (!ready)
        for (int i = 0; i < BATCH; i++)
            for (int j = 12; j < SIZE; j++) data[i][j] = 0x30 | (rand() & 0x8f); /* loud noise: nothing is skipped as silence */
    ready = 1;
    memset(m, 0, sizeof m);
    memset(to, 0, sizeof to);
    for (int k = 0; k < sockets; k++) {
        int n = 0;
        for (int leg = legs * slice / SLICES; leg < legs * (slice + 1) / SLICES; leg++) {
            if (leg % sockets != k) continue;
            io[n] = (struct iovec){data[n], fill(data[n], leg)};
            to[n].sin_family = AF_INET, to[n].sin_addr.s_addr = htonl(INADDR_LOOPBACK), to[n].sin_port = htons(ports[leg]);
            m[n].msg_hdr.msg_iov = &io[n], m[n].msg_hdr.msg_iovlen = 1;
            m[n].msg_hdr.msg_name = &to[n], m[n].msg_hdr.msg_namelen = sizeof to[n];
            if (++n == BATCH) break;
        }
        int r = n ? sendmmsg(fds[k], m, n, 0) : 0;
        if (r > 0) sent += r;
    }
    return sent;
}

static long receive(int *fds, int sockets, double warm, long *lost) {
    static uint8_t data[BATCH][512];
    struct mmsghdr m[BATCH];
    struct iovec io[BATCH];
    struct sockaddr_in from[BATCH];
    long got = 0;
    memset(m, 0, sizeof m);
    for (int i = 0; i < BATCH; i++) {
        io[i] = (struct iovec){data[i], 512};
        m[i].msg_hdr.msg_iov = &io[i], m[i].msg_hdr.msg_iovlen = 1, m[i].msg_hdr.msg_name = &from[i];
    }
    for (int k = 0; k < sockets; k++) {
        for (int i = 0; i < BATCH; i++) m[i].msg_hdr.msg_namelen = sizeof from[i];
        int r = recvmmsg(fds[k], m, BATCH, MSG_DONTWAIT, NULL);
        double t = now();
        for (int i = 0; i < r; i++) {
            int leg = leg_of[ntohs(from[i].sin_port)];
            uint16_t s = data[i][2] << 8 | data[i][3];
            got++;
            if (leg < 0) continue;
            if (last[leg] > warm) {
                double off = (t - last[leg] - 0.020) * 1e4;
                uint16_t step = s - last_sequence[leg];
                if (off < 0) off = -off;
                gaps[off > BINS ? BINS : (int)off]++;
                if (step > 1 && step < 1000) *lost += step - 1;
            }
            last[leg] = t, last_sequence[leg] = s, came[leg]++;
        }
    }
    return got;
}

int main(int count, char **argument) {
    if (count < 3) return 2;
    if (count == 6) type = atoi(argument[3]), step = atoi(argument[4]), load(argument[5]);
    if (count == 4) secure = 1, tl_srtp_keys(context, (uint8_t[16]){0}, (uint8_t[14]){0}, 10);
    double seconds = atof(argument[1]);
    int sockets = atoi(argument[2]), legs = 0, silent = 0, fds[256];
    long sent = 0, received = 0, lost = 0;
    if (sockets < 1 || sockets > 256) return 2;
    memset(leg_of, -1, sizeof leg_of);
    while (legs < LEGS && scanf("%d", &ports[legs]) == 1) leg_of[ports[legs] & 65535] = legs, legs++;
    for (int k = 0; k < sockets; k++) {
        int size = 8 << 20;
        fds[k] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        if (setsockopt(fds[k], SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size))
            setsockopt(fds[k], SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
        struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        if (bind(fds[k], (void *)&any, sizeof any)) return 1;
    }
    for (int i = 0; i < legs; i++) sequence[i] = rand() & 0x7fff, stamp[i] = rand(), last_index[i] = -1;
    double start = now();
    for (long slot = 0;;) {
        double t = now();
        if (t - start > seconds) break;
        if (t >= start + slot * 0.001) {
            sent += send_slice(fds, sockets, legs, slot++ % SLICES);
            continue;
        }
        if (!receive(fds, sockets, start + 1.5, &lost)) nanosleep(&(struct timespec){0, 200000}, NULL);
        else received++;
    }
    uint64_t total = 0, sum = 0;
    double at[3] = {0.5, 0.99, 0.999}, point[3] = {0};
    for (int b = 0; b <= BINS; b++) total += gaps[b];
    for (int b = 0, q = 0; b <= BINS; b++)
        for (sum += gaps[b]; q < 3 && sum >= total * at[q]; q++) point[q] = b / 10.0;
    long packets = 0;
    for (int i = 0; i < legs; i++) packets += came[i], silent += !came[i];
    printf("{\"legs\": %d, \"sent\": %ld, \"received\": %ld, \"lost\": %ld, \"silent\": %d, "
           "\"jitter_ms\": [%.1f, %.1f, %.1f]}\n", legs, sent, packets, lost, silent, point[0], point[1], point[2]);
    return 0;
}

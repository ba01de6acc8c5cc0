/* The media tick's inner loops: sockets and samples of many legs in one call. Plain C11 and Linux; called by ctypes
 * (trunkline.media.native.compiled), with the same behaviour in NumPy (trunkline.media.native.fallback). No state, no
 * allocation. Arrays are contiguous; `row` numbers a leg in arrays over all legs, `i` an element of the call's lists. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define ABI 2            /* fallback.py and compiled.py speak of the same */
#define BURST 4          /* datagrams of one recvmmsg */
#define FRAME 160        /* samples of 20 ms */
#define MISSING (-32768) /* a ring sample that never came: no G.711 level */
#define HEADER 12
#define ADDRESS_BYTES 28 /* sockaddr_in6 */
#define FENCE_EVERY 32   /* packets between two looks at the deadline */

int tl_abi(void) { return ABI; }

/* Where from: 16 octets (IPv4 as ::ffff:a.b.c.d) and the port. */
static void source(const struct sockaddr_storage *from, uint8_t *address, int32_t *port) {
    if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const void *)from;
        memcpy(address, &six->sin6_addr, 16);
        *port = ntohs(six->sin6_port);
    } else {
        const struct sockaddr_in *four = (const void *)from;
        memset(address, 0, 10);
        address[10] = address[11] = 0xff;
        memcpy(address + 12, &four->sin_addr, 4);
        *port = ntohs(four->sin_port);
    }
}

/* The kernel's arrival time (SO_TIMESTAMPNS), ns since 1970; 0 when it gave none. */
static int64_t arrival(struct msghdr *header) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
        }
    return 0;
}

/* Read what waits on n sockets, at most per_socket datagrams each, until `most` are read. Returns how many. A datagram
 * longer than `stride` comes with length 0. */
int tl_receive(int n, const int32_t *fds, const int32_t *rows, int per_socket, int most, int stride, uint8_t *data,
               int32_t *row, int32_t *length, uint8_t *address, int32_t *port, int64_t *at) {
    struct mmsghdr messages[BURST];
    struct iovec parts[BURST];
    struct sockaddr_storage from[BURST];
    union { char bytes[CMSG_SPACE(sizeof(struct timespec))]; struct cmsghdr align; } control[BURST];
    int count = 0;
    memset(messages, 0, sizeof messages);
    for (int b = 0; b < BURST; b++) {
        messages[b].msg_hdr.msg_iov = &parts[b];
        messages[b].msg_hdr.msg_iovlen = 1;
        messages[b].msg_hdr.msg_name = &from[b];
        messages[b].msg_hdr.msg_control = &control[b];
        parts[b].iov_len = stride;
    }
    for (int i = 0; i < n; i++) {
        for (int taken = 0; taken < per_socket && count + BURST <= most;) {
            for (int b = 0; b < BURST; b++) {
                parts[b].iov_base = data + (size_t)(count + b) * stride;
                messages[b].msg_hdr.msg_namelen = sizeof from[b];
                messages[b].msg_hdr.msg_controllen = sizeof control[b];
            }
            int got = recvmmsg(fds[i], messages, BURST, MSG_DONTWAIT, NULL);
            if (got < 0 && errno == ECONNREFUSED) { taken++; continue; } /* an ICMP of something sent earlier */
            for (int b = 0; b < got; b++, count++) {
                struct msghdr *header = &messages[b].msg_hdr;
                row[count] = rows[i];
                length[count] = header->msg_flags & MSG_TRUNC ? 0 : (int32_t)messages[b].msg_len;
                source(&from[b], address + (size_t)count * 16, &port[count]);
                at[count] = arrival(header);
            }
            if (got < BURST) break;
            taken += got;
        }
        if (count + BURST > most) break;
    }
    return count;
}

/* Whether the deadline (ns of CLOCK_BOOTTIME, written by another process) has passed. */
static int passed(const int64_t *until) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec >= __atomic_load_n(until, __ATOMIC_RELAXED);
}

/* Send one datagram from each of n sockets to its row's address. failed[i] becomes errno or 0: ECANCELED for those that
 * were not sent because the deadline `until` (NULL: none) has passed. Returns the successes. */
int tl_send(int n, const int32_t *fds, const int64_t *rows, int stride, const uint8_t *data, const int32_t *length,
            const uint8_t *to, const int32_t *to_length, int32_t *failed, const int64_t *until) {
    int good = 0;
    for (int i = 0; i < n; i++) {
        int64_t r = rows[i];
        if (until && i % FENCE_EVERY == 0 && passed(until)) {
            for (; i < n; i++) failed[i] = ECANCELED;
            break;
        }
        if (length[r] <= 0) { failed[i] = EMSGSIZE; continue; }
        ssize_t sent = sendto(fds[i], data + (size_t)r * stride, length[r], MSG_DONTWAIT | MSG_NOSIGNAL,
                              (const void *)(to + (size_t)r * ADDRESS_BYTES), to_length[r]);
        if (sent < 0 && errno == ECONNREFUSED) /* reports an earlier datagram; this one was not sent */
            sent = sendto(fds[i], data + (size_t)r * stride, length[r], MSG_DONTWAIT | MSG_NOSIGNAL,
                          (const void *)(to + (size_t)r * ADDRESS_BYTES), to_length[r]);
        failed[i] = sent < 0 ? errno : 0;
        good += sent >= 0;
    }
    return good;
}

/* Decode n payloads into their rows' rings of `size` samples (a power of two) at their timestamps. `packet` indexes
 * data; levels: 2 x 256 samples, `law` picks one. */
void tl_put(int n, const int64_t *rows, const int64_t *packet, const int64_t *offset, const int64_t *length,
            const uint8_t *law, const int64_t *timestamp, int stride, const uint8_t *data, const int16_t *levels,
            int size, int16_t *ring) {
    for (int i = 0; i < n; i++) {
        const uint8_t *code = data + (size_t)packet[i] * stride + offset[i];
        const int16_t *level = levels + 256 * (int)law[i];
        int16_t *to = ring + (size_t)rows[i] * size;
        uint32_t at = (uint32_t)timestamp[i];
        for (int64_t s = 0; s < length[i]; s++) to[(at + s) & (size - 1)] = level[code[s]];
    }
}

/* Take the frame at each row's position out of its ring. Missing samples become 0 and are counted in missing[row];
 * frames without any are kept in last[row]. energy[row]: mean square. */
void tl_take(int n, const int64_t *rows, const int64_t *position, int size, int16_t *ring, int16_t *heard,
             int16_t *last, int32_t *missing, float *energy) {
    for (int i = 0; i < n; i++) {
        int64_t r = rows[i];
        int16_t *from = ring + (size_t)r * size, *to = heard + (size_t)r * FRAME;
        uint32_t at = (uint32_t)position[i] & (size - 1);
        int first = size - (int)at < FRAME ? size - (int)at : FRAME, gone = 0;
        int64_t sum = 0;
        memcpy(to, from + at, 2 * (size_t)first);
        memcpy(to + first, from, 2 * (size_t)(FRAME - first));
        for (int s = 0; s < first; s++) from[at + s] = MISSING;
        for (int s = 0; s < FRAME - first; s++) from[s] = MISSING;
        for (int s = 0; s < FRAME; s++) gone += to[s] == MISSING;
        if (gone)
            for (int s = 0; s < FRAME; s++) to[s] = to[s] == MISSING ? 0 : to[s];
        else
            memcpy(last + (size_t)r * FRAME, to, 2 * FRAME);
        for (int s = 0; s < FRAME; s++) sum += (int32_t)to[s] * to[s];
        missing[r] = gone;
        energy[r] = (float)sum / FRAME;
    }
}

/* Copy the frame at each source address to its row. */
void tl_gather(int n, const int64_t *rows, const uint64_t *source_at, int16_t *out) {
    for (int i = 0; i < n; i++) memcpy(out + (size_t)rows[i] * FRAME, (const void *)(uintptr_t)source_at[i], 2 * FRAME);
}

/* Write each row's RTP packet: header and encoded frame. codes: 2 x 65536, `law` picks one. */
void tl_pack(int n, const int64_t *rows, const int16_t *pcm, const uint8_t *law, const uint8_t *type,
             const uint8_t *marker, const int64_t *sequence, const int64_t *timestamp, const int64_t *ssrc,
             const uint8_t *codes, int stride, uint8_t *data, int32_t *length) {
    for (int i = 0; i < n; i++) {
        int64_t r = rows[i];
        uint8_t *to = data + (size_t)r * stride;
        uint32_t t = (uint32_t)timestamp[r], s = (uint32_t)ssrc[r];
        const uint8_t *code = codes + 65536 * (int)law[r];
        const uint16_t *from = (const uint16_t *)pcm + (size_t)r * FRAME;
        to[0] = 0x80;
        to[1] = type[r] | (marker[r] ? 0x80 : 0);
        to[2] = (uint8_t)(sequence[r] >> 8);
        to[3] = (uint8_t)sequence[r];
        to[4] = (uint8_t)(t >> 24), to[5] = (uint8_t)(t >> 16), to[6] = (uint8_t)(t >> 8), to[7] = (uint8_t)t;
        to[8] = (uint8_t)(s >> 24), to[9] = (uint8_t)(s >> 16), to[10] = (uint8_t)(s >> 8), to[11] = (uint8_t)s;
        for (int k = 0; k < FRAME; k++) to[HEADER + k] = code[from[k]];
        length[r] = HEADER + FRAME;
    }
}

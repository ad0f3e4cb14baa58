/* peer.h - the other end of a server under test: a blocking socket on the loopback interface. */
#ifndef LIDO_TESTS_PEER_H
#define LIDO_TESTS_PEER_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* Returns: a descriptor; a program whose server is not there is over. */
static inline int peer_connect(int port)
{
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
                perror("connect");
                exit(1);
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        return fd;
}

/* Send, or receive, so many bytes. Returns: 0; -1 when the other end has gone. */
static inline int peer_send(int fd, const char *bytes, size_t length)
{
        while (length > 0) {
                ssize_t n = write(fd, bytes, length);

                if (n <= 0)
                        return -1;
                bytes += n;
                length -= (size_t)n;
        }
        return 0;
}

static inline int peer_receive(int fd, char *bytes, size_t length)
{
        while (length > 0) {
                ssize_t n = read(fd, bytes, length);

                if (n <= 0)
                        return -1;
                bytes += n;
                length -= (size_t)n;
        }
        return 0;
}

#endif

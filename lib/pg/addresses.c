#include "pg/addresses.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "pg/failure.h"

bool addresses_are_needed(const char *host)
{
        return host && host[0] != '/' && host[0] != '@';
}

static bool is_known(const struct addresses *addresses, const char *text)
{
        for (unsigned i = 0; i < addresses->count; i++)
                if (strcmp(addresses->text[i], text) == 0)
                        return true;
        return false;
}

void addresses_take(struct addresses *addresses, const struct addrinfo *list)
{
        addresses->count = 0;
        for (; list && addresses->count < ADDRESSES_MAX; list = list->ai_next) {
                char *text = addresses->text[addresses->count];

                if (getnameinfo(list->ai_addr, list->ai_addrlen, text, ADDRESS_LENGTH, NULL, 0, NI_NUMERICHOST) == 0 &&
                    !is_known(addresses, text))
                        addresses->count++;
        }
}

void addresses_explain(const char *host, const char *why, int native, struct lido_error *error)
{
        char text[sizeof error->text];

        snprintf(text, sizeof text, "could not translate host name \"%.100s\" to address: %.100s", host, why);
        failure_set(error, LIDO_EFACTORY, LIDO_FAILURE_NETWORK, text);
        error->native = native;
}

int addresses_resolve(struct addresses *addresses, const char *host, struct lido_error *error)
{
        struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
        struct addrinfo *list = NULL;
        int rc = getaddrinfo(host, NULL, &hints, &list);

        addresses_take(addresses, rc == 0 ? list : NULL);
        if (list)
                freeaddrinfo(list);
        if (addresses->count > 0)
                return LIDO_OK;
        addresses_explain(host, rc ? gai_strerror(rc) : "it has none", rc, error);
        return LIDO_EFACTORY;
}

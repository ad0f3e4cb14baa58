/* bench/buffers/textbook.c - a mutex and a list of free buffers for each power of two. Nothing goes back. */
#define RIVAL_NAME "textbook"

#include "bench/buffers/rival.h"

#define CLASSES 64

struct free_buffer {
        struct free_buffer *next;
};

static struct {
        pthread_mutex_t lock;
        struct free_buffer *first;
} classes[CLASSES];

static void rival_open(size_t bytes)
{
        (void)bytes;
        for (unsigned i = 0; i < CLASSES; i++)
                (void)pthread_mutex_init(&classes[i].lock, NULL);
}

/* The smallest power of two that holds so many bytes. */
static inline unsigned class_of(size_t bytes)
{
        return bytes <= 8 ? 3 : 64u - (unsigned)__builtin_clzl(bytes - 1);
}

static inline void *rival_acquire(size_t bytes)
{
        unsigned class = class_of(bytes);
        struct free_buffer *buffer;

        (void)pthread_mutex_lock(&classes[class].lock);
        buffer = classes[class].first;
        if (buffer)
                classes[class].first = buffer->next;
        (void)pthread_mutex_unlock(&classes[class].lock);
        return buffer ? (void *)buffer : malloc((size_t)1 << class);
}

static inline void rival_release(void *memory, size_t bytes)
{
        struct free_buffer *buffer = memory;
        unsigned class = class_of(bytes);

        (void)pthread_mutex_lock(&classes[class].lock);
        buffer->next = classes[class].first;
        classes[class].first = buffer;
        (void)pthread_mutex_unlock(&classes[class].lock);
}

static void rival_close(void)
{
        for (unsigned i = 0; i < CLASSES; i++)
                while (classes[i].first) {
                        struct free_buffer *buffer = classes[i].first;

                        classes[i].first = buffer->next;
                        free(buffer);
                }
}

#include "bench/buffers/load.h"

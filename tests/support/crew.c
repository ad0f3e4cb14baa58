#include "support/crew.h"

#include <check.h>

static void *begin(void *argument)
{
        struct crew_member *member = argument;

        pthread_barrier_wait(&member->crew->start);
        member->crew->work(member->crew->context, member->number);
        return NULL;
}

void crew_start(struct crew *crew, unsigned count, void (*work)(void *, unsigned), void *context)
{
        ck_assert_uint_le(count, CREW_MOST);
        crew->work = work;
        crew->context = context;
        crew->count = count;
        pthread_barrier_init(&crew->start, NULL, count);
        for (unsigned i = 0; i < count; i++) {
                crew->member[i].crew = crew;
                crew->member[i].number = i;
                ck_assert_int_eq(pthread_create(&crew->member[i].thread, NULL, begin, &crew->member[i]), 0);
        }
}

void crew_join(struct crew *crew)
{
        for (unsigned i = 0; i < crew->count; i++)
                pthread_join(crew->member[i].thread, NULL);
        pthread_barrier_destroy(&crew->start);
}

void crew_run(unsigned count, void (*work)(void *, unsigned), void *context)
{
        struct crew crew;

        crew_start(&crew, count, work, context);
        crew_join(&crew);
}

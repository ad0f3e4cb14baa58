/* An allocator of the embedder's own. It can be chosen only before lido is used, so each test has a process of its own. */
#include "lido/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/fixture.h"
#include "support/suite.h"

/* What the allocator has been asked for. */
static struct books {
        _Atomic int given, taken;
        _Atomic int left; /* so many more are given, then none; negative: no end */
        _Atomic int strange; /* what came back was not ours, or a boundary was none */
} books;

#define TOKEN UINT64_C(0x6c69646f6c69646f)

/* Each piece has a token in front, so that a piece of anybody else's is known. */
static void *allocate(size_t alignment, size_t bytes, void *context)
{
        struct books *b = context;
        size_t front = alignment > 64 ? alignment : 64;
        char *memory;

        if (bytes == 0 || (alignment & (alignment - 1)) != 0)
                atomic_fetch_add(&b->strange, 1);
        if (atomic_load(&b->left) == 0)
                return NULL;
        if (atomic_load(&b->left) > 0)
                atomic_fetch_sub(&b->left, 1);
        if (posix_memalign((void **)(void *)&memory, front, front + bytes) != 0)
                return NULL;
        memset(memory, 0xa5, front + bytes);
        memcpy(memory + front - 8, &(uint64_t){ TOKEN }, 8);
        memcpy(memory + front - 16, &front, sizeof front);
        atomic_fetch_add(&b->given, 1);
        return memory + front;
}

static void give_back(void *memory, void *context)
{
        struct books *b = context;
        uint64_t token;
        size_t front;

        memcpy(&token, (char *)memory - 8, sizeof token);
        if (token != TOKEN) {
                atomic_fetch_add(&b->strange, 1);
                return;
        }
        memcpy(&front, (char *)memory - 16, sizeof front);
        atomic_fetch_add(&b->taken, 1);
        free((char *)memory - front);
}

static struct lido_allocator our_allocator(void)
{
        struct lido_allocator allocator = LIDO_ALLOCATOR_INIT;

        allocator.allocate = allocate;
        allocator.free = give_back;
        allocator.context = &books;
        atomic_store(&books.left, -1);
        return allocator;
}

/* Run it in a child that has not used lido yet; 0 is what it returns when all went well. */
static void in_child(int (*body)(int), int argument)
{
        pid_t pid = fork();
        int status;

        if (pid == 0)
                _exit(body(argument));
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_msg(WIFEXITED(status), "ended by signal %d", WTERMSIG(status));
        ck_assert_msg(WEXITSTATUS(status) == 0, "step %d went wrong", WEXITSTATUS(status));
}

static int use_everything(int ignored)
{
        struct lido_allocator allocator = our_allocator();
        struct fixture *f;
        lido_lease lease;
        int before;

        (void)ignored;
        if (lido_set_allocator(&allocator) != LIDO_OK)
                return 1;
        f = pool_of(300); /* a larger table of slots */
        lease = must_acquire(f);
        before = atomic_load(&books.given);
        if (before == 0)
                return 2;
        must_release(lease);
        for (int i = 0; i < 100; i++)
                must_release(must_acquire(f));
        if (atomic_load(&books.given) != before)
                return 3; /* acquire and release allocate nothing */
        fixture_end(f);
        return atomic_load(&books.strange) == 0 ? 0 : 4;
}

START_TEST(lido_takes_all_its_memory_from_the_chosen_allocator)
{
        in_child(use_everything, 0);
}
END_TEST

static int choose_too_late(int ignored)
{
        struct lido_allocator allocator = our_allocator();

        (void)ignored;
        lido_deallocate(lido_allocate(8, 8));
        if (lido_set_allocator(&allocator) != LIDO_EBUSY || lido_set_allocator(NULL) != LIDO_EBUSY)
                return 1;
        lido_deallocate(lido_allocate(8, 8));
        return atomic_load(&books.given) == 0 ? 0 : 2;
}

START_TEST(once_lido_has_memory_the_allocator_cannot_change)
{
        in_child(choose_too_late, 0);
}
END_TEST

static int choose_badly(int ignored)
{
        struct lido_allocator allocator = our_allocator();

        (void)ignored;
        allocator.free = NULL;
        if (lido_set_allocator(&allocator) != LIDO_EINVAL)
                return 1;
        allocator = our_allocator();
        allocator.size = 3;
        if (lido_set_allocator(&allocator) != LIDO_EINVAL)
                return 2;
        lido_deallocate(lido_allocate(8, 8));
        return atomic_load(&books.given) == 0 ? 0 : 3;
}

START_TEST(half_an_allocator_is_refused)
{
        in_child(choose_badly, 0);
}
END_TEST

static int change_ones_mind(int ignored)
{
        struct lido_allocator allocator = our_allocator();

        (void)ignored;
        if (lido_set_allocator(&allocator) != LIDO_OK || lido_set_allocator(NULL) != LIDO_OK)
                return 1;
        lido_deallocate(lido_allocate(8, 8));
        return atomic_load(&books.given) == 0 ? 0 : 2;
}

START_TEST(until_then_one_may_change_ones_mind)
{
        in_child(change_ones_mind, 0);
}
END_TEST

/* The n-th piece of memory is refused. Returns 0 when whoever asked was told, and nothing stays behind but what is kept for reuse. */
static int run_out_after(int n)
{
        struct lido_allocator allocator = our_allocator();
        struct fixture *f = fixture_new();
        int rc;

        if (lido_set_allocator(&allocator) != LIDO_OK)
                return 1;
        atomic_store(&books.left, n);
        rc = lido_service_start(&f->service, NULL);
        if (rc == LIDO_OK) {
                rc = lido_pool_open(&f->pool, f->service, &f->fake.factory, &f->options);
                if (rc == LIDO_OK)
                        lido_pool_free(f->pool);
                if (lido_service_stop(f->service, PATIENCE_MS) != LIDO_OK)
                        return 2;
        }
        if (rc != LIDO_ENOMEM)
                return 3;
        atomic_store(&books.left, -1);
        if (lido_service_start(&f->service, NULL) != LIDO_OK)
                return 4;
        if (lido_pool_open(&f->pool, f->service, &f->fake.factory, &f->options) != LIDO_OK)
                return 5;
        fixture_end(f);
        return atomic_load(&books.strange) == 0 ? 0 : 6;
}

START_TEST(when_the_allocator_has_no_more_the_caller_is_told_and_nothing_breaks)
{
        for (int n = 0; n < 2; n++) /* service, pool */
                in_child(run_out_after, n);
}
END_TEST

static int allocate_for_a_factory(int ignored)
{
        struct lido_allocator allocator = our_allocator();
        unsigned char *memory;

        (void)ignored;
        if (lido_set_allocator(&allocator) != LIDO_OK)
                return 1;
        memory = lido_allocate(256, 1000);
        if (!memory || (uintptr_t)memory % 256 != 0)
                return 2;
        for (int i = 0; i < 1000; i++)
                if (memory[i] != 0)
                        return 3;
        lido_deallocate(memory);
        lido_deallocate(NULL);
        return atomic_load(&books.given) == 1 && atomic_load(&books.taken) == 1 ? 0 : 4;
}

START_TEST(a_factory_gets_zeroed_memory_from_the_same_place)
{
        in_child(allocate_for_a_factory, 0);
}
END_TEST

int main(void)
{
        return suite_run("base/memory", (const TTest *[]){
                                                lido_takes_all_its_memory_from_the_chosen_allocator,
                                                once_lido_has_memory_the_allocator_cannot_change,
                                                half_an_allocator_is_refused,
                                                until_then_one_may_change_ones_mind,
                                                when_the_allocator_has_no_more_the_caller_is_told_and_nothing_breaks,
                                                a_factory_gets_zeroed_memory_from_the_same_place,
                                                NULL,
                                        });
}

/* The heap of times, against a sorted array. */
#include "base/heap.h"

#include <stddef.h>
#include <stdint.h>

#include "base/random.h"
#include "support/suite.h"

#define NODES 200

static uint64_t take(struct heap *heap)
{
        struct heap_node *first = heap_first(heap);
        uint64_t due_ns = first->due_ns;

        heap_remove(heap, first);
        return due_ns;
}

START_TEST(an_empty_heap_has_no_first)
{
        struct heap heap = { NULL };

        ck_assert_ptr_null(heap_first(&heap));
}
END_TEST

START_TEST(they_come_out_in_order_of_time)
{
        struct heap heap = { NULL };
        struct heap_node nodes[NODES] = { { .is_in = false } };
        struct random random = { 1 };
        uint64_t last = 0;

        for (int i = 0; i < NODES; i++)
                heap_set(&heap, &nodes[i], random_below(&random, 50));

        for (int i = 0; i < NODES; i++) {
                uint64_t due_ns = take(&heap);

                ck_assert_uint_le(last, due_ns);
                last = due_ns;
        }
        ck_assert_ptr_null(heap_first(&heap));
}
END_TEST

START_TEST(setting_again_moves_a_node_both_ways)
{
        struct heap heap = { NULL };
        struct heap_node a = { .is_in = false }, b = { .is_in = false };

        heap_set(&heap, &a, 10);
        heap_set(&heap, &b, 20);
        heap_set(&heap, &b, 5);
        ck_assert_ptr_eq(heap_first(&heap), &b);
        heap_set(&heap, &b, 30);

        ck_assert_ptr_eq(heap_first(&heap), &a);
        ck_assert_uint_eq(take(&heap), 10);
        ck_assert_uint_eq(take(&heap), 30);
        ck_assert_ptr_null(heap_first(&heap));
}
END_TEST

START_TEST(removing_one_that_is_not_in_is_harmless)
{
        struct heap heap = { NULL };
        struct heap_node a = { .is_in = false }, b = { .is_in = false };

        heap_set(&heap, &a, 1);
        heap_remove(&heap, &b);
        heap_remove(&heap, &a);
        heap_remove(&heap, &a);

        ck_assert_ptr_null(heap_first(&heap));
        ck_assert(!a.is_in);
}
END_TEST

/* The least of those that are in, found the slow way. */
static uint64_t least(const struct heap_node *nodes)
{
        uint64_t least = UINT64_MAX;

        for (int i = 0; i < NODES; i++)
                if (nodes[i].is_in && nodes[i].due_ns < least)
                        least = nodes[i].due_ns;
        return least;
}

START_TEST(after_any_sets_and_removes_the_first_is_the_least)
{
        struct heap heap = { NULL };
        struct heap_node nodes[NODES] = { { .is_in = false } };
        struct random random = { 7 };

        for (int step = 0; step < 20000; step++) {
                struct heap_node *node = &nodes[random_below(&random, NODES)];

                if (random_below(&random, 3) == 0)
                        heap_remove(&heap, node);
                else
                        heap_set(&heap, node, random_below(&random, 1000));

                ck_assert_uint_eq(heap_first(&heap) ? heap_first(&heap)->due_ns : UINT64_MAX, least(nodes));
        }
}
END_TEST

int main(void)
{
        return suite_run("base/heap", (const TTest *[]){
                                              an_empty_heap_has_no_first,
                                              they_come_out_in_order_of_time,
                                              setting_again_moves_a_node_both_ways,
                                              removing_one_that_is_not_in_is_harmless,
                                              after_any_sets_and_removes_the_first_is_the_least,
                                              NULL,
                                      });
}

/* The intrusive list. Lists under concurrency are the business of tests/pool/waitq.c. */
#include "base/list.h"

#include <stdint.h>
#include <stdlib.h>

#include "support/suite.h"

struct item {
        int number;
        struct list link;
};

/* The numbers in a list, as decimal digits: 1, 2, 3 is 123. */
static int digits(struct list *head)
{
        int all = 0;

        list_for_each (link, head)
                all = all * 10 + list_entry(link, struct item, link)->number;
        return all;
}

/* The same from the back: both directions tell the same story. */
static int digits_backwards(struct list *head)
{
        int all = 0;

        for (struct list *link = head->prev; link != head; link = link->prev)
                all = all * 10 + list_entry(link, struct item, link)->number;
        return all;
}

static void fill(struct list *head, struct item *items, int count)
{
        list_init(head);
        for (int i = 0; i < count; i++) {
                items[i].number = i + 1;
                list_push_back(head, &items[i].link);
        }
}

START_TEST(a_new_list_is_empty)
{
        struct list head;

        list_init(&head);

        ck_assert(list_is_empty(&head));
        ck_assert_ptr_null(list_front(&head));
        ck_assert_ptr_null(list_back(&head));
}
END_TEST

START_TEST(pushed_to_the_back_they_come_in_order)
{
        struct list head;
        struct item items[3];

        fill(&head, items, 3);

        ck_assert_int_eq(digits(&head), 123);
        ck_assert_int_eq(digits_backwards(&head), 321);
        ck_assert_ptr_eq(list_front(&head), &items[0].link);
        ck_assert_ptr_eq(list_back(&head), &items[2].link);
}
END_TEST

START_TEST(pushed_to_the_front_it_is_first)
{
        struct list head;
        struct item items[2], first = { .number = 9 };

        fill(&head, items, 2);
        list_push_front(&head, &first.link);

        ck_assert_int_eq(digits(&head), 912);
        ck_assert_int_eq(digits_backwards(&head), 219);
}
END_TEST

START_TEST(inserted_before_a_place_it_is_there)
{
        struct list head;
        struct item items[3], middle = { .number = 9 };

        fill(&head, items, 3);
        list_insert_before(&items[2].link, &middle.link);

        ck_assert_int_eq(digits(&head), 1293);
}
END_TEST

START_TEST(unlinked_anywhere_the_rest_keeps_its_order)
{
        struct list head;
        struct item items[4];

        fill(&head, items, 4);
        list_unlink(&items[1].link);
        ck_assert_int_eq(digits(&head), 134);
        list_unlink(&items[0].link);
        ck_assert_int_eq(digits(&head), 34);
        list_unlink(&items[3].link);
        ck_assert_int_eq(digits(&head), 3);
        list_unlink(&items[2].link);

        ck_assert(list_is_empty(&head));
}
END_TEST

START_TEST(unlinking_twice_is_harmless)
{
        struct list head;
        struct item items[2];

        fill(&head, items, 2);
        list_unlink(&items[0].link);
        list_unlink(&items[0].link);

        ck_assert(!list_is_linked(&items[0].link));
        ck_assert(list_is_linked(&items[1].link));
        ck_assert_int_eq(digits(&head), 2);
}
END_TEST

START_TEST(the_body_of_a_safe_walk_may_unlink_what_it_sees)
{
        struct list head;
        struct item items[5];

        fill(&head, items, 5);
        list_for_each_safe (link, &head)
                if (list_entry(link, struct item, link)->number % 2 == 1)
                        list_unlink(link);

        ck_assert_int_eq(digits(&head), 24);
}
END_TEST

int main(void)
{
        return suite_run("base/list", (const TTest *[]){
                                              a_new_list_is_empty,
                                              pushed_to_the_back_they_come_in_order,
                                              pushed_to_the_front_it_is_first,
                                              inserted_before_a_place_it_is_there,
                                              unlinked_anywhere_the_rest_keeps_its_order,
                                              unlinking_twice_is_harmless,
                                              the_body_of_a_safe_walk_may_unlink_what_it_sees,
                                              NULL,
                                      });
}

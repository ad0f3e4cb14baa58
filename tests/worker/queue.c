/* The queue alone: classes, ageing, overload. Threads and policies are in threads.c and submit.c. */
#include "worker/support.h"

static struct queue queue;
static struct job jobs[64];

static struct job *push(int i, uint16_t priority)
{
        jobs[i].priority = priority;
        queue_push(&queue, &jobs[i]);
        queue_check(&queue);
        return &jobs[i];
}

static int pop(void)
{
        struct job *job = queue_pop(&queue);

        queue_check(&queue);
        return job ? (int)(job - jobs) : -1;
}

static void setup(void)
{
        memset(jobs, 0, sizeof jobs);
        queue_init(&queue, 3, 10 * NS_PER_MS, 100 * NS_PER_MS);
}

START_TEST(equals_leave_in_the_order_in_which_they_came)
{
        for (int i = 0; i < 5; i++)
                push(i, LIDO_PRIORITY_NORMAL);
        for (int i = 0; i < 5; i++)
                ck_assert_int_eq(pop(), i);
        ck_assert_int_eq(pop(), -1);
}
END_TEST

START_TEST(a_higher_class_goes_first)
{
        push(0, LIDO_PRIORITY_LOW);
        push(1, LIDO_PRIORITY_NORMAL);
        push(2, LIDO_PRIORITY_HIGH);
        ck_assert_int_eq(pop(), 2);
        ck_assert_int_eq(pop(), 1);
        ck_assert_int_eq(pop(), 0);
}
END_TEST

START_TEST(a_low_job_is_overtaken_at_most_overtake_jobs_times)
{
        int place = 0;

        push(0, LIDO_PRIORITY_LOW);
        for (int i = 1; i < 20; i++)
                push(i, LIDO_PRIORITY_HIGH);
        while (pop() != 0)
                place++;
        ck_assert_int_eq(place, 3);
}
END_TEST

START_TEST(nobody_starves_between_two_classes_above)
{
        bool low = false, normal = false;

        push(0, LIDO_PRIORITY_LOW);
        push(1, LIDO_PRIORITY_NORMAL);
        for (int i = 2; i < 20; i++)
                push(i, LIDO_PRIORITY_HIGH);
        for (int i = 0; i < 6; i++) {
                int popped = pop();

                low |= popped == 0;
                normal |= popped == 1;
        }
        ck_assert(low && normal);
}
END_TEST

START_TEST(a_job_can_be_taken_out_of_the_middle)
{
        for (int i = 0; i < 3; i++)
                push(i, LIDO_PRIORITY_NORMAL);
        queue_unlink(&queue, &jobs[1]);
        queue_check(&queue);
        ck_assert_int_eq(pop(), 0);
        ck_assert_int_eq(pop(), 2);
        ck_assert_uint_eq(queue_count(&queue), 0);
}
END_TEST

START_TEST(the_victim_is_the_oldest_of_the_lowest_class_that_may_be_dropped)
{
        push(0, LIDO_PRIORITY_NORMAL);
        push(1, LIDO_PRIORITY_LOW)->flags = LIDO_JOB_KEEP;
        push(2, LIDO_PRIORITY_LOW);
        push(3, LIDO_PRIORITY_LOW);
        ck_assert_ptr_eq(queue_victim(&queue), &jobs[2]);
        queue_unlink(&queue, &jobs[2]);
        queue_unlink(&queue, &jobs[3]);
        ck_assert_ptr_eq(queue_victim(&queue), &jobs[0]);
        queue_unlink(&queue, &jobs[0]);
        ck_assert_ptr_null(queue_victim(&queue));
}
END_TEST

/* One interval of waits, each so long, and the first note after it. */
static void interval_of(uint64_t from_ns, uint64_t wait_ns)
{
        for (uint64_t t = from_ns; t <= from_ns + 100 * NS_PER_MS; t += 10 * NS_PER_MS)
                queue_note_wait(&queue, wait_ns, t);
}

START_TEST(a_queue_that_stands_for_a_whole_interval_sheds_what_waited_for_twice_the_target)
{
        uint64_t start = NS_PER_S;

        push(0, LIDO_PRIORITY_NORMAL)->since_ns = start;
        push(1, LIDO_PRIORITY_NORMAL)->since_ns = start + 95 * NS_PER_MS;
        interval_of(start, 15 * NS_PER_MS);
        ck_assert_ptr_eq(queue_overdue(&queue, start + 100 * NS_PER_MS), &jobs[0]);
        queue_unlink(&queue, &jobs[0]);
        ck_assert_ptr_null(queue_overdue(&queue, start + 100 * NS_PER_MS));
}
END_TEST

START_TEST(a_burst_that_passes_sheds_nothing)
{
        uint64_t start = NS_PER_S;

        push(0, LIDO_PRIORITY_NORMAL)->since_ns = start;
        queue_note_wait(&queue, 50 * NS_PER_MS, start);
        queue_note_wait(&queue, 5 * NS_PER_MS, start + 50 * NS_PER_MS);
        queue_note_wait(&queue, 50 * NS_PER_MS, start + 100 * NS_PER_MS);
        ck_assert_ptr_null(queue_overdue(&queue, start + 101 * NS_PER_MS));
}
END_TEST

START_TEST(an_empty_queue_counts_as_no_wait)
{
        uint64_t start = NS_PER_S;

        push(0, LIDO_PRIORITY_NORMAL)->since_ns = start;
        queue_note_wait(&queue, 50 * NS_PER_MS, start);
        pop();
        push(1, LIDO_PRIORITY_NORMAL)->since_ns = start;
        queue_note_wait(&queue, 50 * NS_PER_MS, start + 100 * NS_PER_MS);
        ck_assert_ptr_null(queue_overdue(&queue, start + 101 * NS_PER_MS));
}
END_TEST

START_TEST(a_job_to_keep_is_not_shed)
{
        uint64_t start = NS_PER_S;

        push(0, LIDO_PRIORITY_NORMAL)->since_ns = start;
        jobs[0].flags = LIDO_JOB_KEEP;
        interval_of(start, 15 * NS_PER_MS);
        ck_assert(queue.is_standing);
        ck_assert_ptr_null(queue_overdue(&queue, start + 200 * NS_PER_MS));
}
END_TEST

int main(void)
{
        return suite_run_with("worker/queue",
                              (const TTest *[]){
                                      equals_leave_in_the_order_in_which_they_came,
                                      a_higher_class_goes_first,
                                      a_low_job_is_overtaken_at_most_overtake_jobs_times,
                                      nobody_starves_between_two_classes_above,
                                      a_job_can_be_taken_out_of_the_middle,
                                      the_victim_is_the_oldest_of_the_lowest_class_that_may_be_dropped,
                                      a_queue_that_stands_for_a_whole_interval_sheds_what_waited_for_twice_the_target,
                                      a_burst_that_passes_sheds_nothing,
                                      an_empty_queue_counts_as_no_wait,
                                      a_job_to_keep_is_not_shed,
                                      NULL,
                              },
                              setup, NULL);
}

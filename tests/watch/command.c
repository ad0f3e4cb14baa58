/* Commands as text. What they do is shown with the functions that they call: tests/keeper/operate.c. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lido/admin.h"
#include "support/desk.h"
#include "support/suite.h"

static char answer[8000];

static const char *say_with(struct desk *desk, uint32_t flags, const char *line)
{
        struct lido_commands on = LIDO_COMMANDS_INIT;
        size_t length;

        on.pools = &desk->pool;
        on.count = 1;
        on.flags = flags;
        on.wait_timeout_ms = 1;
        length = lido_command(&on, line, answer, sizeof answer);
        ck_assert_uint_eq(length, strlen(answer));
        ck_assert_uint_gt(length, 0);
        ck_assert_int_eq(answer[length - 1], '\n');
        return answer;
}

static const char *say(struct desk *desk, const char *line)
{
        return say_with(desk, 0, line);
}

static struct desk *desk_named(const char *name)
{
        struct desk *desk = desk_new();

        desk->f.options.name = name;
        desk->f.options.max = 3;
        desk_open(desk);
        desk_warm_up(desk, 2);
        return desk;
}

/* The field of a column in the first row of a table. */
static const char *field(const char *table, const char *column)
{
        static char value[3000];
        const char *head = table, *row = strchr(table, '\n') + 1;

        for (;;) {
                size_t n = strcspn(head, "\t\n"), m = strcspn(row, "\t\n");

                if (strlen(column) == n && memcmp(head, column, n) == 0) {
                        snprintf(value, sizeof value, "%.*s", (int)m, row);
                        return value;
                }
                ck_assert_msg(head[n] == '\t', "there is no column %s", column);
                head += n + 1;
                row += m + 1;
        }
}

START_TEST(a_pool_is_paused_and_resumed_by_its_name_or_with_all)
{
        struct desk *desk = desk_named("orders");
        lido_lease lease;

        ck_assert_str_eq(say(desk, "PAUSE orders"), "PAUSE\n");
        ck_assert_int_eq(lido_try_acquire(desk->pool, &lease), LIDO_EPAUSED);
        ck_assert_str_eq(field(say(desk, "SHOW POOLS"), "state"), "paused");
        ck_assert_str_eq(say(desk, "  resume ; "), "RESUME\n");
        must_release(desk_acquire(desk));
        ck_assert_str_eq(field(say(desk, "show pools orders;"), "state"), "active");
        desk_end(desk);
}
END_TEST

START_TEST(reconnect_replaces_all_and_wait_close_waits_for_the_old_ones)
{
        struct fixture *f = pool_of(3);
        struct lido_commands on = LIDO_COMMANDS_INIT;
        lido_lease lease;

        on.pools = &f->pool;
        on.count = 1;
        warm_up(f, 2);
        lease = must_acquire(f);
        lido_command(&on, "RECONNECT", answer, sizeof answer);
        ck_assert_str_eq(answer, "RECONNECT\n");
        on.wait_timeout_ms = 1;
        lido_command(&on, "WAIT_CLOSE", answer, sizeof answer);
        ck_assert_ptr_nonnull(strstr(answer, "ERROR: "));
        must_release(lease);
        on.wait_timeout_ms = PATIENCE_MS;
        lido_command(&on, "WAIT_CLOSE", answer, sizeof answer);

        ck_assert_str_eq(answer, "WAIT_CLOSE\n");
        ck_assert_uint_eq(atomic_load(&f->fake.closed), 2);
        fixture_end(f);
}
END_TEST

START_TEST(waiting_on_the_loop_thread_is_refused)
{
        struct desk *desk = desk_named("a");

        say(desk, "RECONNECT");
        ck_assert_int_eq(strncmp(say(desk, "WAIT_CLOSE"), "ERROR: ", 7), 0);
        desk_end(desk);
}
END_TEST

START_TEST(clear_closes_what_is_idle)
{
        struct desk *desk = desk_named("a");

        ck_assert_str_eq(say(desk, "CLEAR a"), "CLEAR\n");
        desk_turn(desk);
        ck_assert_uint_eq(desk->f.fake.closed, 2);
        desk_end(desk);
}
END_TEST

START_TEST(options_are_set_as_a_whole_or_not_at_all)
{
        struct desk *desk = desk_named("a");

        ck_assert_str_eq(say(desk, "SET a max=20 idle_timeout=1min"), "SET\n");
        ck_assert_uint_eq(stats_of(desk->pool).max, 20);
        ck_assert_ptr_nonnull(strstr(say(desk, "SHOW CONFIG"), "max=20 "));
        ck_assert_ptr_nonnull(strstr(answer, "idle_timeout=1min"));

        ck_assert_str_eq(say(desk, "SET a max=30 min=2000000"), "ERROR: min=2000000 is not between 0 and 1000000\n");
        ck_assert_ptr_nonnull(strstr(say(desk, "SET a max=30 open_inline=1"), "ERROR: "));
        ck_assert_uint_eq(stats_of(desk->pool).max, 20);
        desk_end(desk);
}
END_TEST

START_TEST(setting_one_option_leaves_a_resized_pool_as_it_is)
{
        struct desk *desk = desk_named("a");

        ck_assert_int_eq(lido_pool_resize(desk->pool, 7), LIDO_OK);
        ck_assert_str_eq(say(desk, "SET a idle_timeout=1min"), "SET\n");
        ck_assert_uint_eq(stats_of(desk->pool).max, 7);
        desk_end(desk);
}
END_TEST

START_TEST(handles_show_who_has_what)
{
        struct desk *desk = desk_named("a");
        lido_lease lease[2] = { desk_acquire(desk), desk_acquire(desk) };

        say(desk, "SHOW HANDLES");
        ck_assert_str_eq(field(answer, "state"), "leased");
        ck_assert_ptr_nonnull(strstr(field(answer, "site"), "desk.c:"));
        must_release(lease[0]);
        say(desk, "SHOW HANDLES");
        ck_assert_ptr_nonnull(strstr(answer, "\tidle\t"));
        ck_assert_ptr_nonnull(strstr(answer, "\tleased\t"));
        ck_assert_ptr_null(strstr(answer, "vacant"));
        must_release(lease[1]);
        desk_end(desk);
}
END_TEST

static void describe(void *object, char *text, size_t size, void *context)
{
        (void)context;
        snprintf(text, size, "number\t%u", ((struct fake_object *)object)->serial);
}

START_TEST(what_the_factory_says_about_an_object_in_use_is_shown)
{
        struct desk *desk = desk_new();
        lido_lease lease;

        desk->f.options.max = 1;
        desk->f.fake.factory.describe = describe;
        desk_open(desk);
        desk_warm_up(desk, 1);
        ck_assert_str_eq(field(say(desk, "SHOW HANDLES"), "object"), "");
        lease = desk_acquire(desk);
        ck_assert_str_eq(field(say(desk, "SHOW HANDLES"), "object"), "number 1"); /* a line stays a line, a column a column */
        must_release(lease);
        desk_end(desk);
}
END_TEST

START_TEST(waiters_show_who_stands_in_line_and_for_how_long)
{
        struct desk *desk = desk_named("a");
        struct waiting w[100] = { { .calls = 0 } };
        unsigned rows = 0;

        lido_pool_pause(desk->pool, LIDO_PAUSE_HOLD);
        for (int i = 0; i < 100; i++)
                desk_wait(desk, &w[i], LIDO_NEVER);
        clock_advance(7 * NS_PER_MS);

        say(desk, "SHOW WAITERS");
        ck_assert_str_eq(field(answer, "waited_ms"), "7");
        ck_assert_str_eq(field(answer, "priority"), "normal");
        for (const char *at = answer; (at = strchr(at, '\n')) != NULL; at++)
                rows++;
        ck_assert_uint_eq(rows, 65);
        lido_pool_pause(desk->pool, LIDO_PAUSE_REJECT);
        desk_end(desk);
}
END_TEST

START_TEST(stats_and_health_are_shown)
{
        struct desk *desk = desk_named("a");

        must_release(desk_acquire(desk));
        ck_assert_str_eq(field(say(desk, "SHOW STATS"), "acquired"), "3");
        ck_assert_str_eq(field(answer, "opened"), "2");
        ck_assert_str_eq(field(say(desk, "SHOW HEALTH a"), "health"), "healthy");
        desk_end(desk);
}
END_TEST

START_TEST(each_command_is_named_in_the_help)
{
        static const char *const name[] = { "PAUSE", "RESUME", "RECONNECT", "WAIT_CLOSE", "CLEAR", "SET", "SHOW POOLS",
                                            "SHOW HANDLES", "SHOW WAITERS", "SHOW STATS", "SHOW HEALTH", "SHOW CONFIG",
                                            "SHOW OPTIONS", "SHOW VERSION" };
        struct desk *desk = desk_named("a");

        say(desk, "SHOW HELP");
        for (size_t i = 0; i < sizeof name / sizeof name[0]; i++)
                ck_assert_ptr_nonnull(strstr(answer, name[i]));
        ck_assert_ptr_nonnull(strstr(say(desk, "SHOW OPTIONS"), "idle_timeout"));
        ck_assert_ptr_nonnull(strstr(say(desk, "SHOW VERSION"), lido_version()));
        desk_end(desk);
}
END_TEST

START_TEST(what_is_no_command_is_refused_and_changes_nothing)
{
        static const char *const line[] = { "", ";", "PAUS", "PAUSE nobody", "PAUSE a b", "SHOW", "SHOW nothing", "SET",
                                            "SET nobody max=1", "SET a", "SHOW POOLS nobody", "SHOW VERSION a", "POOLS",
                                            "SHOW PAUSE", "RESUME a max=3" };
        struct desk *desk = desk_named("a");

        for (size_t i = 0; i < sizeof line / sizeof line[0]; i++)
                if (strcmp(line[i], "SET a") != 0) /* no option at all is all of them as they are */
                        ck_assert_msg(strncmp(say(desk, line[i]), "ERROR: ", 7) == 0, "\"%s\" says %s", line[i], answer);
        must_release(desk_acquire(desk));
        desk_end(desk);
}
END_TEST

START_TEST(where_only_looking_is_allowed_nothing_is_done)
{
        struct desk *desk = desk_named("a");

        ck_assert_str_eq(say_with(desk, LIDO_COMMANDS_READ_ONLY, "PAUSE"), "ERROR: only SHOW is allowed here\n");
        ck_assert_str_eq(field(say_with(desk, LIDO_COMMANDS_READ_ONLY, "SHOW POOLS"), "state"), "active");
        desk_end(desk);
}
END_TEST

START_TEST(an_answer_too_long_is_cut_and_its_length_told)
{
        struct desk *desk = desk_named("a");
        struct lido_commands on = LIDO_COMMANDS_INIT;
        char part[20];
        size_t length;

        on.pools = &desk->pool;
        on.count = 1;
        length = lido_command(&on, "SHOW POOLS", answer, sizeof answer);
        memset(part, 'x', sizeof part);
        ck_assert_uint_eq(lido_command(&on, "SHOW POOLS", part, 10), length);
        ck_assert_uint_eq(strlen(part), 9);
        ck_assert_int_eq(part[10], 'x');
        ck_assert_uint_eq(lido_command(&on, "SHOW POOLS", NULL, 0), length);

        on.flags = 6;
        ck_assert_uint_eq(lido_command(&on, "SHOW POOLS", answer, sizeof answer), 0);
        ck_assert_uint_eq(lido_command(NULL, "SHOW POOLS", answer, sizeof answer), 0);
        desk_end(desk);
}
END_TEST

int main(void)
{
        return suite_run("watch/command", (const TTest *[]){
                                                  a_pool_is_paused_and_resumed_by_its_name_or_with_all,
                                                  reconnect_replaces_all_and_wait_close_waits_for_the_old_ones,
                                                  waiting_on_the_loop_thread_is_refused,
                                                  clear_closes_what_is_idle,
                                                  options_are_set_as_a_whole_or_not_at_all,
                                                  setting_one_option_leaves_a_resized_pool_as_it_is,
                                                  handles_show_who_has_what,
                                                  what_the_factory_says_about_an_object_in_use_is_shown,
                                                  waiters_show_who_stands_in_line_and_for_how_long,
                                                  stats_and_health_are_shown,
                                                  each_command_is_named_in_the_help,
                                                  what_is_no_command_is_refused_and_changes_nothing,
                                                  where_only_looking_is_allowed_nothing_is_done,
                                                  an_answer_too_long_is_cut_and_its_length_told,
                                                  NULL,
                                          });
}

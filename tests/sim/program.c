#include "sim/program.h"

#include <stdio.h>
#include <string.h>

#include "base/random.h"
#include "lido/error.h"

static const char *const op_names[] = {
#define XX(name, argument) #name,
        PROGRAM_OP_MAP(XX)
#undef XX
};

const char *program_op_name(int op)
{
        return op_names[op];
}

void program_plain(struct program *program, uint32_t max, uint32_t filled)
{
        memset(program, 0, sizeof *program);
        program->max = max;
        program->filled = filled;
        program->open_limit = 4;
        program->pools = 1;
        program->ageing_ms = 1000;
        program->overtake_us = 500;
        program->queue_limit = UINT32_MAX;
        program->max_uses = UINT32_MAX;
        program->opens = 1;
        program->open[0].failure = -1;
}

void program_typical(struct program *program)
{
        program_plain(program, 2, 2);
        program->threads = 4;
        for (int i = 0; i < 4; i++)
                for (int k = 0; k < 2; k++) {
                        program->step[i][2 * k] = (struct step){OP_ACQUIRE, 1000};
                        program->step[i][2 * k + 1] = (struct step){OP_RELEASE, 0};
                }
}

void program_day(struct program *program)
{
        program_plain(program, 4, 0);
        program->min = 1;
        program->threads = PROGRAM_THREADS;
        program->roam_s = 24 * 3600;
        program->idle_ms = 600000;
        program->lifetime_ms = 1800000;
        program->rest_ms = 1000;
        program->check_after_ms = 30000;
        program->check_interval_ms = 120000;
        program->has_check = program->has_reset = program->has_peek = 1;
        program->bad_check = 50;
        program->bad_peek = 90;
        program->check_us = 2000;
        program->close_us = 1000;
        program->opens = PROGRAM_OPENS;
        for (int i = 0; i < PROGRAM_OPENS; i++)
                program->open[i] = (struct open_script){50000, i % 3 == 1 ? 4 : -1};
}

/* ---- drawing ---------------------------------------------------------------------------------------------
 */

static uint32_t one_of(struct random *random, const uint32_t *list, unsigned count)
{
        return list[random_below(random, count)];
}
#define ONE_OF(random, ...)                             \
        one_of(random, (const uint32_t[]){__VA_ARGS__}, \
               sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static bool chance(struct random *random, unsigned one_in)
{
        return random_below(random, one_in) == 0;
}

static bool is_special(const struct program *program)
{
        return program->pools > 1 || program->quota || program->ageing_ms != 1000;
}

static struct step draw_operator(struct random *random)
{
        switch (random_below(random, 5)) {
        case 0:
                return (struct step){OP_TRIM, (uint32_t)random_below(random, 2)};
        case 1:
                return (struct step){OP_CLEAR, 0};
        case 2:
                return ONE_OF(random, 0, 1) ? (struct step){OP_ROTATE_SOME, ONE_OF(random, 0, 1000, 5000)}
                                            : (struct step){OP_ROTATE, ONE_OF(random, 0, 1000, 5000)};
        case 3:
                return (struct step){OP_DOUBT, 0};
        default:
                return (struct step){OP_SUSPECT, 0};
        }
}

/* Of what not every program has. */
static struct step draw_special(struct random *random, const struct program *program)
{
        switch (random_below(random, 8)) {
        case 0:
        case 1:
                return (struct step){OP_CLASS, (uint32_t)random_below(random, 4)};
        case 2:
                return (struct step){OP_OTHER, (uint32_t)random_below(random, 2)};
        case 3:
        case 4:
                return (struct step){OP_MANY, ONE_OF(random, 1000, 5000, 100000)};
        case 5:
                return program->budget ? (struct step){OP_BUDGET, 2 * program->min + ONE_OF(random, 1, 2, 3)}
                                       : (struct step){OP_QUOTA, ONE_OF(random, 1, 2)};
        default:
                return (struct step){OP_TAG, (uint32_t)random_below(random, 3) > 0};
        }
}

static struct step draw_idle_step(struct random *random, const struct program *program)
{
        if (is_special(program) && chance(random, 4))
                return draw_special(random, program);
        switch (random_below(random, 24)) {
        case 0:
        case 1:
                return (struct step){OP_TRY, 0};
        case 2:
                return (struct step){OP_STALE, 0};
        case 3:
                return (struct step){OP_STEAL, 0};
        case 4:
        case 5:
                return (struct step){OP_REQUEST, ONE_OF(random, 0, 1, 1000, 5000)};
        case 6:
                return (struct step){OP_CANCEL, 0};
        case 7:
                return (struct step){OP_AWAIT, 0};
        case 8:
                return (struct step){OP_RESIZE, ONE_OF(random, 1, 2, 3)};
        case 9:
                return (struct step){OP_PAUSE, (uint32_t)random_below(random, 2)};
        case 10:
                return (struct step){OP_RESUME, 0};
        case 11:
                return (struct step){OP_BROKEN, 0};
        case 12:
                return draw_operator(random);
        case 13:
                return chance(random, 4) ? (struct step){OP_CLOSE, ONE_OF(random, 0, 1000, 100000)}
                                         : (struct step){OP_HOLD, ONE_OF(random, 1, 1000)};
        case 14:
        case 15:
                return (struct step){OP_HOLD, ONE_OF(random, 1, 20, 100, 1000, 5000, 20000)};
        default:
                return (struct step){OP_ACQUIRE, ONE_OF(random, 0, 1000, 1000, 1000, 5000, 100000)};
        }
}

static struct step draw_holding_step(struct random *random, const struct program *program)
{
        switch (random_below(random, 16)) {
        case 0:
                return (struct step){OP_DISCARD, 0};
        case 1:
                return (struct step){OP_DETACH, 0};
        case 2:
                return (struct step){OP_SHARE, 0};
        case 3:
        case 4:
        case 5:
        case 6:
                return (struct step){OP_HOLD, ONE_OF(random, 1, 20, 50, 100, 1000, 5000)};
        case 7:
                return draw_idle_step(random, program);
        case 8:
                return (struct step){OP_REVOKE, 0};
        default:
                return (struct step){OP_RELEASE, 0};
        }
}

static void draw_thread(struct random *random, const struct program *program, struct step *steps)
{
        unsigned count = 1 + (unsigned)random_below(random, PROGRAM_OPS);
        bool holds = false;

        for (unsigned i = 0; i < count; i++) {
                steps[i] = holds ? draw_holding_step(random, program) : draw_idle_step(random, program);
                if (steps[i].op == OP_ACQUIRE || steps[i].op == OP_TRY || steps[i].op == OP_MANY)
                        holds = true;
                if (steps[i].op == OP_RELEASE || steps[i].op == OP_DISCARD || steps[i].op == OP_DETACH)
                        holds = false;
        }
}

static void draw_upkeep(struct random *random, struct program *program)
{
        if (chance(random, 3))
                program->idle_ms = ONE_OF(random, 1, 8, 100);
        if (chance(random, 4))
                program->lifetime_ms = ONE_OF(random, 1, 5, 100);
        if (chance(random, 3))
                program->rest_ms = ONE_OF(random, 1, 3, 20);
        if (chance(random, 4))
                program->check_after_ms = ONE_OF(random, 1, 5);
        if (chance(random, 4))
                program->check_interval_ms = ONE_OF(random, 1, 5);
        if (chance(random, 6))
                program->max_uses = ONE_OF(random, 1, 2);
        program->has_check = !chance(random, 3);
        program->has_reset = !chance(random, 2);
        program->has_peek = chance(random, 3);
        program->has_verdict = chance(random, 3);
        program->has_interrupt = chance(random, 2);
        program->bad_peek = (uint8_t)ONE_OF(random, 0, 0, 1, 3);
        program->bad_check = (uint8_t)ONE_OF(random, 0, 0, 2, 3);
        program->close_us = ONE_OF(random, 0, 0, 10, 3000);
        program->check_us = ONE_OF(random, 0, 0, 10, 3000);
        program->reset_us = ONE_OF(random, 0, 0, 10);
}

static void draw_opens(struct random *random, struct program *program)
{
        program->opens = 1 + (uint32_t)random_below(random, PROGRAM_OPENS);
        for (uint32_t i = 0; i < program->opens; i++) {
                program->open[i].us = ONE_OF(random, 0, 0, 10, 150, 3000);
                program->open[i].failure = -1;
                if (i + 1 < program->opens && chance(random, 5))
                        program->open[i].failure = (int8_t)random_below(random, 5);
        }
}

static void draw_specials(struct random *random, struct program *program)
{
        switch (random_below(random, 6)) {
        case 0:
                program->quota = ONE_OF(random, 1, 1, 2);
                break;
        case 1:
                program->ageing_ms = ONE_OF(random, 1, 5, 100);
                break;
        case 2:
                program->pools = 2;
                break;
        case 3:
                program->pools = 2;
                /* more than what all are to have in any case, or the others wait for ever */
                program->budget = 2 * program->min + 1 + (uint32_t)random_below(random, 2 * program->max - 1);
                break;
        default:
                break;
        }
        program->has_blocking = chance(random, 6);
}

void program_draw(struct program *program, uint64_t seed)
{
        struct random random = {seed ^ UINT64_C(0x6c69646f)};

        random_next(&random);
        program_plain(program, ONE_OF(&random, 1, 1, 2, 2, 3), 0);
        program->filled = (uint32_t)random_below(&random, program->max + 1);
        program->open_limit = ONE_OF(&random, 1, 4);
        program->overtake_us = chance(&random, 3) ? -1 : (int64_t)ONE_OF(&random, 0, 0, 500, 500, 1000000);
        if (chance(&random, 8))
                program->order = 1;
        if (chance(&random, 12))
                program->queue_limit = ONE_OF(&random, 1, 2);
        if (chance(&random, 8))
                program->min = 1;
        if (chance(&random, 8))
                program->min_idle = 1;
        draw_opens(&random, program);
        if (chance(&random, 2))
                draw_upkeep(&random, program);
        draw_specials(&random, program);
        program->threads = 2 + (uint32_t)random_below(&random, 4);
        for (uint32_t i = 0; i < program->threads; i++)
                draw_thread(&random, program, program->step[i]);
}

/* ---- text ------------------------------------------------------------------------------------------------
 */

unsigned program_ops(const struct program *program)
{
        unsigned count = 0;

        for (uint32_t i = 0; i < program->threads; i++)
                for (int k = 0; k < PROGRAM_OPS; k++)
                        count += program->step[i][k].op != OP_NOTHING;
        return count;
}

static void print_count(const char *name, uint32_t value, uint32_t usual)
{
        if (value != usual)
                printf(" %s=%u", name, value);
}

void program_print(const struct program *p)
{
        printf("  pool max=%u", p->max);
        print_count("filled", p->filled, 0);
        print_count("min", p->min, 0);
        print_count("min_idle", p->min_idle, 0);
        print_count("open_limit", p->open_limit, 4);
        printf(" overtake_us=%lld", (long long)p->overtake_us);
        print_count("order", p->order, 0);
        print_count("queue_limit", p->queue_limit, UINT32_MAX);
        print_count("max_uses", p->max_uses, UINT32_MAX);
        print_count("idle_ms", p->idle_ms, 0);
        print_count("lifetime_ms", p->lifetime_ms, 0);
        print_count("rest_ms", p->rest_ms, 0);
        print_count("check_after_ms", p->check_after_ms, 0);
        print_count("check_interval_ms", p->check_interval_ms, 0);
        print_count("pools", p->pools, 1);
        print_count("budget", p->budget, 0);
        print_count("quota", p->quota, 0);
        print_count("ageing_ms", p->ageing_ms, 1000);
        printf("\n  factory opens:");
        for (uint32_t i = 0; i < p->opens; i++)
                printf(" %s%d/%uus", p->open[i].failure < 0 ? "ok" : "fails", p->open[i].failure,
                       p->open[i].us);
        print_count("close_us", p->close_us, 0);
        print_count("check", p->has_check, 0);
        print_count("check_us", p->check_us, 0);
        print_count("bad_check", p->bad_check, 0);
        print_count("reset", p->has_reset, 0);
        print_count("reset_us", p->reset_us, 0);
        print_count("peek", p->has_peek, 0);
        print_count("bad_peek", p->bad_peek, 0);
        print_count("verdict", p->has_verdict, 0);
        print_count("interrupt", p->has_interrupt, 0);
        print_count("blocking", p->has_blocking, 0);
        printf("\n");
        for (uint32_t i = 0; i < p->threads; i++) {
                printf("  %c:", 'A' + (int)i);
                for (int k = 0; k < PROGRAM_OPS; k++) {
                        const struct step *step = &p->step[i][k];

                        if (step->op == OP_NOTHING)
                                continue;
                        printf(" %s", op_names[step->op]);
                        if (step->argument)
                                printf("(%u)", step->argument);
                }
                printf("\n");
        }
}

/* ---- smaller ---------------------------------------------------------------------------------------------
 */

static void drop_thread(struct program *program, uint32_t thread)
{
        for (uint32_t i = thread; i + 1 < program->threads; i++)
                memcpy(program->step[i], program->step[i + 1], sizeof program->step[i]);
        program->threads--;
        memset(program->step[program->threads], 0, sizeof program->step[0]);
}

static bool same(const struct program *a, const struct program *b)
{
        return memcmp(a, b, sizeof *a) == 0;
}

static void calm(struct program *p, unsigned n)
{
        struct program plain;

        program_plain(&plain, p->max, p->filled);
        switch (n) {
#define XX(number, field)               \
        case number:                    \
                p->field = plain.field; \
                break;
                XX(0, min)
                XX(1, min_idle)
                XX(2, open_limit)
                XX(4, order)
                XX(5, queue_limit)
                XX(6, max_uses)
                XX(7, idle_ms)
                XX(8, lifetime_ms)
                XX(9, rest_ms)
                XX(10, check_after_ms)
                XX(11, check_interval_ms)
                XX(12, close_us)
                XX(13, check_us)
                XX(14, reset_us)
                XX(15, has_peek)
                XX(16, has_verdict)
                XX(17, has_check)
                XX(18, has_reset)
                XX(19, has_interrupt)
                XX(20, bad_peek)
                XX(21, bad_check)
                XX(25, budget)
                XX(26, quota)
                XX(27, ageing_ms)
                XX(28, has_blocking)
                XX(29, pools)
#undef XX
        case 3:
                p->overtake_us = -1; /* nobody spins */
                break;
        case 22:
                p->opens = 1;
                memset(p->open, 0, sizeof p->open);
                p->open[0].failure = -1;
                break;
        case 23:
                for (uint32_t i = 0; i < p->opens; i++)
                        p->open[i].us = 0;
                break;
        case 24:
                if (p->max > 1) {
                        p->max--;
                        p->filled = p->filled > p->max ? p->max : p->filled;
                }
                break;
        default:
                p->filled = p->max;
                break;
        }
}
#define CALMS 31

bool program_smaller(const struct program *program, unsigned n, struct program *ret_smaller)
{
        unsigned steps = program->threads * PROGRAM_OPS;

        *ret_smaller = *program;
        if (n < program->threads) {
                if (program->threads > 1)
                        drop_thread(ret_smaller, n);
        } else if (n < program->threads + steps) {
                n -= program->threads;
                ret_smaller->step[n / PROGRAM_OPS][n % PROGRAM_OPS] = (struct step){OP_NOTHING, 0};
        } else if (n < program->threads + steps + CALMS) {
                calm(ret_smaller, n - program->threads - steps);
        } else {
                return false;
        }
        if (same(program, ret_smaller))
                ret_smaller->threads = 0; /* no candidate */
        return true;
}

/* A run as text, one line a step: its number, the coroutine, the operation, what it read or wrote, where it
 * stands. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "sim/sched.h"

static const char *const names[] = {
        [SIM_OP_LOAD] = "load", [SIM_OP_STORE] = "store",       [SIM_OP_CAS] = "cas",
        [SIM_OP_ADD] = "add",   [SIM_OP_SUB] = "sub",           [SIM_OP_OR] = "or",
        [SIM_OP_AND] = "and",   [SIM_OP_EXCHANGE] = "exchange", [SIM_OP_WAKE] = "wake",
        [SIM_OP_OTHER] = "",
};
static const char *const orders[] = {"", " acquire", " release", " acq_rel", " seq_cst"};

static unsigned long long step(void)
{
        return sched.steps + (uint64_t)(sched.given - sim.quantum);
}

static const char *short_name(const char *file)
{
        const char *lib = strstr(file, "lib/"), *tests = strstr(file, "tests/");

        return lib ? lib : tests ? tests : file;
}

/* Addresses are named by their place, so that they are the same in each process. */
static void print_value(char *text, size_t size, uint64_t value)
{
        uint64_t offset;
        const char *place = sim_place((const void *)(uintptr_t)value, &offset);

        if (place)
                snprintf(text, size, "%s+0x%llx", place, (unsigned long long)offset);
        else
                snprintf(text, size, "0x%llx", (unsigned long long)value);
}

void trace_step(const struct sim_site *site, const volatile void *address, const char *result, uint64_t value)
{
        char where[40] = "", what[40];

        if (address)
                print_value(where, sizeof where, (uint64_t)(uintptr_t)address);
        print_value(what, sizeof what, value);
        if (site->kind == SIM_OP_OTHER || site->kind == SIM_OP_WAKE)
                printf("%6llu  %-10s %-44s %-28s %s:%d %s\n", step(), sim.current->name, result, site->what,
                       short_name(site->file), site->line, site->function);
        else
                printf("%6llu  %-10s %-5s%-9s %-13s %s%-*s %-28s %s:%d %s\n", step(), sim.current->name,
                       names[site->kind], orders[site->order], where, result, 15 - (int)strlen(result), what,
                       site->what, short_name(site->file), site->line, site->function);
}

void trace_line(const char *text)
{
        printf("%6llu  %-10s -- %s\n", step(), sim.current->name ? sim.current->name : "", text);
}

void sim_note_traced(const char *format, ...)
{
        char text[300];
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        trace_line(text);
}

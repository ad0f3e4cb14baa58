#include "base/stack.h"

#include <stdio.h>
#include <string.h>

#ifdef HAVE_BACKTRACE
#include <execinfo.h>
#endif
#ifdef HAVE_DLADDR
#include <dlfcn.h>
#endif

#define WALK_MOST 64
#define OWN_MOST 3

void stack_prepare(void)
{
        void *frame[2];

        stack_walk(frame, 2, 0);
}

__attribute__((noinline)) uint32_t stack_walk(void **ret_frame, uint32_t most, uint32_t skip)
{
#ifdef HAVE_BACKTRACE
        void *frame[WALK_MOST], *caller = __builtin_return_address(0);
        int count, wanted, first = 0;

        wanted = most < WALK_MOST && skip < WALK_MOST && skip + most + OWN_MOST < WALK_MOST ? (int)(skip + most + OWN_MOST) : WALK_MOST;
        count = backtrace(frame, wanted);
        while (first < count && frame[first] != caller) /* itself, and what a sanitizer puts before backtrace */
                first++;
        if (skip >= WALK_MOST || count - first <= (int)skip)
                return 0;
        count -= first + (int)skip;
        if ((uint32_t)count > most)
                count = (int)most;
        memcpy(ret_frame, frame + first + skip, (size_t)count * sizeof *frame);
        return (uint32_t)count;
#else
        (void)ret_frame, (void)most, (void)skip;
        return 0;
#endif
}

#ifdef HAVE_DLADDR
static const char *last_part(const char *path)
{
        const char *slash = strrchr(path, '/');

        return slash ? slash + 1 : path;
}

/* A return address is behind the call, and the call may be the last of its function: look one before it. */
int stack_name(void *frame, char *text, size_t size)
{
        size_t address = (size_t)frame;
        Dl_info info;

        if (dladdr((char *)frame - 1, &info) == 0 || !info.dli_fname)
                return snprintf(text, size, "%#zx", address);
        if (info.dli_sname)
                return snprintf(text, size, "%s+%#zx (%s+%#zx)", info.dli_sname, address - (size_t)info.dli_saddr,
                                last_part(info.dli_fname), address - (size_t)info.dli_fbase);
        return snprintf(text, size, "%s+%#zx", last_part(info.dli_fname), address - (size_t)info.dli_fbase);
}

const void *stack_object(const void *address)
{
        Dl_info info;

        return dladdr(address, &info) != 0 ? info.dli_fbase : NULL;
}
#else
int stack_name(void *frame, char *text, size_t size)
{
        return snprintf(text, size, "%#zx", (size_t)frame);
}

const void *stack_object(const void *address)
{
        (void)address;
        return NULL;
}
#endif

#include "sim/jobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void begin(unsigned piece, bool (*run)(unsigned piece, void *context), void *context)
{
        pid_t child;
        bool is_well;

        fflush(stdout);
        child = fork();
        if (child < 0) {
                perror("sim: fork");
                exit(2);
        }
        if (child > 0)
                return;
        is_well = run(piece, context);
        fflush(stdout);
        _exit(is_well ? 0 : 1);
}

bool jobs_run(unsigned count, unsigned at_once, bool (*run)(unsigned piece, void *context), void *context)
{
        unsigned begun = 0, at_work = 0;
        bool is_well = true;

        while (at_work > 0 || (begun < count && is_well)) {
                int status;

                if (begun < count && is_well && at_work < at_once) {
                        begin(begun++, run, context);
                        at_work++;
                        continue;
                }
                if (wait(&status) < 0) {
                        perror("sim: wait");
                        exit(2);
                }
                at_work--;
                if (WIFSIGNALED(status))
                        printf("a process ends by signal %d\n", WTERMSIG(status));
                is_well = is_well && status == 0;
        }
        return is_well;
}

unsigned jobs_processors(void)
{
        long count = sysconf(_SC_NPROCESSORS_ONLN);

        return count < 1 ? 1 : (unsigned)count;
}

void *jobs_share(size_t size)
{
        void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

        if (memory == MAP_FAILED) {
                perror("sim: mmap");
                exit(2);
        }
        return memory;
}

/* sim/switch.h - change stacks: some ten instructions, because it happens millions of times a second. */
#ifndef LIDO_SIM_SWITCH_H
#define LIDO_SIM_SWITCH_H

#include <stddef.h>

/* Save the callee-saved registers on this stack and its pointer in *save; go on where `restore` was saved. */
void sim_switch(void **save, void *restore);

/* A stack pointer that, restored, calls `enter` on a fresh stack; `enter` never returns. */
void *sim_stack(void *base, size_t size, void (*enter)(void));

#endif

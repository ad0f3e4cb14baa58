/* sim/switch.h - change stacks: some ten instructions, because it happens millions of times a second. */
#ifndef LIDO_SIM_SWITCH_H
#define LIDO_SIM_SWITCH_H

/* Save the callee-saved registers on this stack and its pointer in *save; go on where `restore` was saved. */
void sim_switch(void **save, void *restore);

/* A stack pointer that, restored, calls `enter` on the fresh stack that ends here; `enter` never returns. */
void *sim_stack(void *end, void (*enter)(void));

#endif

#include "sim/switch.h"

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)

__asm__(".text\n"
        ".globl sim_switch\n"
        ".hidden sim_switch\n"
        ".type sim_switch, @function\n"
        "sim_switch:\n"
        "        pushq %rbp\n"
        "        pushq %rbx\n"
        "        pushq %r12\n"
        "        pushq %r13\n"
        "        pushq %r14\n"
        "        pushq %r15\n"
        "        movq %rsp, (%rdi)\n"
        "        movq %rsi, %rsp\n"
        "        popq %r15\n"
        "        popq %r14\n"
        "        popq %r13\n"
        "        popq %r12\n"
        "        popq %rbx\n"
        "        popq %rbp\n"
        "        ret\n"
        ".size sim_switch, . - sim_switch\n");

void *sim_stack(void *end, void (*enter)(void))
{
        /* as after a call: the return address lies 8 bytes below a multiple of 16 */
        uint64_t *top = (uint64_t *)(void *)((char *)end - 24);

        top[0] = 0;
        top[-1] = (uint64_t)(uintptr_t)enter;
        memset(top - 7, 0, 6 * sizeof *top);
        return top - 7;
}

#elif defined(__aarch64__)

__asm__(".text\n"
        ".globl sim_switch\n"
        ".hidden sim_switch\n"
        ".type sim_switch, %function\n"
        "sim_switch:\n"
        "        sub sp, sp, #160\n"
        "        stp x19, x20, [sp, #0]\n"
        "        stp x21, x22, [sp, #16]\n"
        "        stp x23, x24, [sp, #32]\n"
        "        stp x25, x26, [sp, #48]\n"
        "        stp x27, x28, [sp, #64]\n"
        "        stp x29, x30, [sp, #80]\n"
        "        stp d8, d9, [sp, #96]\n"
        "        stp d10, d11, [sp, #112]\n"
        "        stp d12, d13, [sp, #128]\n"
        "        stp d14, d15, [sp, #144]\n"
        "        mov x9, sp\n"
        "        str x9, [x0]\n"
        "        mov sp, x1\n"
        "        ldp x19, x20, [sp, #0]\n"
        "        ldp x21, x22, [sp, #16]\n"
        "        ldp x23, x24, [sp, #32]\n"
        "        ldp x25, x26, [sp, #48]\n"
        "        ldp x27, x28, [sp, #64]\n"
        "        ldp x29, x30, [sp, #80]\n"
        "        ldp d8, d9, [sp, #96]\n"
        "        ldp d10, d11, [sp, #112]\n"
        "        ldp d12, d13, [sp, #128]\n"
        "        ldp d14, d15, [sp, #144]\n"
        "        add sp, sp, #160\n"
        "        ret\n"
        ".size sim_switch, . - sim_switch\n");

void *sim_stack(void *end, void (*enter)(void))
{
        uint64_t *frame = (uint64_t *)(void *)((char *)end - 160);

        memset(frame, 0, 160);
        frame[11] = (uint64_t)(uintptr_t)enter; /* x30 */
        return frame;
}

#else
#error "the model scheduler knows no context switch for this processor"
#endif

#define _XOPEN_SOURCE 700
#include "base/signals.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t received;

static void note(int number) {
    (void)number;
    received = 1;
}

/* On a stack of its own: code that oneDNN generates keeps data below the stack pointer, further
 * down than the ABI's 128 bytes, and a handler on that stack writes over it. */
void signals_watch(void) {
    static char handler_stack[65536];
    const stack_t stack = {.ss_sp = handler_stack, .ss_size = sizeof handler_stack};
    struct sigaction action = {0};
    sigaltstack(&stack, NULL);
    action.sa_handler = note;
    action.sa_flags = (int)(SA_RESETHAND | SA_ONSTACK); /* the second signal has its usual effect */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool signals_received(void) {
    return received != 0;
}

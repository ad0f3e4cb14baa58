/* watch/states.h - what the states of a slot are called. */
#ifndef LIDO_WATCH_STATES_H
#define LIDO_WATCH_STATES_H

#include "pool/slots.h"

static const char *const state_names[SLOT_STATES] = {
        [SLOT_VACANT] = "vacant",       [SLOT_OPENING] = "opening",   [SLOT_IDLE] = "idle",
        [SLOT_RESTED] = "rested",       [SLOT_LEASED] = "leased",     [SLOT_CHECKING] = "checking",
        [SLOT_RESETTING] = "resetting", [SLOT_CLOSING] = "closing",
};

#endif

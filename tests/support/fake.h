/* fake.h - a factory that answers as the test has scripted, and counts.
 *
 * Each of the four hooks that are answered has a script: a queue of steps, one for each call, and the step for when the queue
 * is empty. A step says what is answered (LIDO_OK or a failure) and in which way: at once, from another thread, twice, later
 * when the test says so, or after going through the hook's gate (for factories that block).
 *
 *      fake_init(&fake);
 *      fake_always(&fake, FAKE_CHECK, (struct fake_step){ .status = LIDO_EFACTORY });
 *      fake_once(&fake, FAKE_OPEN, (struct fake_step){ .way = FAKE_LATER });
 *      ... lido_pool_open(&pool, service, &fake.factory, &options) ...
 *      fake_answer(&fake, FAKE_OPEN);
 */
#ifndef LIDO_TESTS_FAKE_H
#define LIDO_TESTS_FAKE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "lido.h"
#include "support/gate.h"

enum fake_hook { FAKE_OPEN, FAKE_CHECK, FAKE_RESET, FAKE_CLOSE, FAKE_HOOKS };

enum fake_way {
        FAKE_NOW,
        FAKE_THREAD, /* from another thread, soon */
        FAKE_TWICE,  /* now, and again: the second answer must be refused */
        FAKE_LATER,  /* when the test calls fake_answer */
        FAKE_GATE,   /* now, once the hook's gate is open */
};

struct fake_step {
        enum fake_way way;
        int status;           /* LIDO_OK, or a code */
        int failure;          /* enum lido_failure */
        const char *sqlstate; /* NULL: none */
        const char *text;     /* NULL: some */
};

struct fake_op {
        lido_op op;
        enum fake_hook hook;
        struct fake_step step;
        struct fake_object *object;
        struct fake_op *next;
};

struct fake_object {
        struct fake *fake;
        uint32_t serial;       /* 1 is the first that was ever opened */
        _Atomic uint32_t users; /* borrowers that use it, by fake_use */
        _Atomic bool is_broken; /* fake_break: its peek says DEAD, its check fails */
        _Atomic bool is_dirty;  /* a borrower has left something: its verdict says RESET, and a reset cleans it */
        lido_handle handle;    /* as watch was told; loop thread */
        _Atomic bool is_watched;
        bool is_dropped;        /* detached and ended by its owner, while it was still watched; guarded by fake->lock */
};

struct fake {
        struct lido_factory factory; /* the test may change it before the pool is opened */
        struct gate gate[FAKE_HOOKS];

        _Atomic uint32_t called[FAKE_HOOKS];   /* how often each hook was called */
        _Atomic uint32_t at_work[FAKE_HOOKS];  /* calls not answered yet */
        _Atomic uint32_t most_at_work[FAKE_HOOKS];
        _Atomic uint32_t opened, closed;       /* objects made and ended */
        _Atomic uint32_t alive, most_alive;
        _Atomic uint32_t cancels, peeks, verdicts, interrupts, watches, unwatches, ends;
        _Atomic uint32_t refused_answers;      /* answers that the pool did not take */
        _Atomic int peek_says, verdict_says;   /* enum lido_peek, enum lido_verdict */
        _Atomic uint32_t overlaps;             /* an object had two users at a time */
        _Atomic uint32_t intrusions;           /* a hook was called on an object in use */
        _Atomic uint32_t ended_in_use, ended_watched;
        void (*on_hook)(struct fake *fake, enum fake_hook hook, void *object); /* called first in each hook; NULL: nothing */
        struct fake_step (*choose)(struct fake *fake, enum fake_hook hook);    /* in place of the script; NULL: the script */
        void *data; /* the test's */

        pthread_mutex_t lock; /* guards what follows */
        pthread_cond_t changed;
        struct fake_step always[FAKE_HOOKS];
        struct fake_step once[FAKE_HOOKS][16];
        unsigned once_count[FAKE_HOOKS];
        struct fake_op *later[FAKE_HOOKS]; /* oldest first */
        struct fake_op *posted;            /* for the answering thread */
        bool has_thread, is_ending;
        pthread_t thread;
};

/* The hooks beyond open, check, reset, close, cancel, interrupt and end. */
#define FAKE_HAS_PEEK 1u
#define FAKE_HAS_VERDICT 2u
#define FAKE_HAS_WATCH 4u
#define FAKE_HAS_ALL 7u

void fake_init(struct fake *fake);

/* Give it hooks that it lacks at first. Before the pool is opened. */
void fake_add_hooks(struct fake *fake, unsigned hooks);

/* The pool is gone: fails the test if an object is left or an op was never answered. */
void fake_fini(struct fake *fake);

/* Nobody had an object that was not his. */
void fake_check(struct fake *fake);

void fake_always(struct fake *fake, enum fake_hook hook, struct fake_step step);
void fake_once(struct fake *fake, enum fake_hook hook, struct fake_step step);

/* Answer the oldest op that waits for it, as its step says. Returns: what the pool said to the answer. */
int fake_answer(struct fake *fake, enum fake_hook hook);

/* How many ops wait for fake_answer. */
unsigned fake_kept(struct fake *fake, enum fake_hook hook);

/* Answer all that wait now. */
void fake_answer_all(struct fake *fake);

/* An object that no pool owns, to be adopted: fake_remember comes before lido_pool_adopt, fake_forget before lido_detach, so that
 * `alive` counts what pools own. fake_drop ends an object that no pool owns. */
struct fake_object *fake_make(struct fake *fake);
void fake_remember(struct fake *fake);
void fake_forget(struct fake *fake);
void fake_drop(struct fake_object *object);

/* What a borrower does with an object: fake_use notes when it is not alone with it. */
void fake_use(struct fake_object *object);
void fake_unuse(struct fake_object *object);

void fake_break(struct fake_object *object);

#endif

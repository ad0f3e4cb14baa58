/* keyed/table.h - a hash table of keys: buckets of intrusive entries, which grows and shrinks with what is in it.
 *
 * It locks nothing: its shard does. When there is no memory for more buckets it goes on with longer chains.
 */
#ifndef LIDO_KEYED_TABLE_H
#define LIDO_KEYED_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/list.h"

struct table_entry {
        struct list link; /* in its bucket */
        uint64_t hash;
        const void *key;  /* constant */
        size_t key_size;
};

struct table {
        struct list *bucket;    /* NULL before the first entry */
        uint32_t buckets;       /* a power of two */
        uint32_t count;
};

/* The entry of a key; NULL: none. */
struct table_entry *table_find(const struct table *table, const struct table_entry *like);

/* Put in an entry whose key is not in the table. Returns: LIDO_OK; LIDO_ENOMEM when there is not one bucket. */
int table_add(struct table *table, struct table_entry *entry);

void table_remove(struct table *table, struct table_entry *entry);

/* Any entry; NULL: the table is empty. */
struct table_entry *table_any(const struct table *table);

/* Walk all entries, which must stay. */
#define table_for_each(it, table)                                                                              \
        for (uint32_t it##_i = 0; it##_i < (table)->buckets; it##_i++)                                          \
                list_for_each (it##_link, &(table)->bucket[it##_i])                                             \
                        for (struct table_entry *it = list_entry(it##_link, struct table_entry, link); it; it = NULL)

/* Free its memory; it is empty. */
void table_fini(struct table *table);

#endif

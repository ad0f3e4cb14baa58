/* pg/pool.h - telling pools of connections from others. */
#ifndef LIDO_PG_POOL_H
#define LIDO_PG_POOL_H

struct lido_pool;

/* Has lido_pg_pool_open opened it? */
int pool_is_pg(const struct lido_pool *pool);

#endif

//! redis-hygiene: a Redis module that keeps a Redis used by Celery clean from
//! inside the server, whatever its clients are configured to do.

pub mod core;

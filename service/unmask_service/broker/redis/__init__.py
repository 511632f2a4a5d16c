"""The broker over Redis Streams: any number of API processes and workers."""

from unmask_service.broker.redis.api_side import RedisApiBroker
from unmask_service.broker.redis.connection import Connections, connect
from unmask_service.broker.redis.engine_side import RedisEngineBroker
from unmask_service.broker.redis.format import Keys
from unmask_service.broker.redis.side import Timing

__all__ = ["Connections", "Keys", "RedisApiBroker", "RedisEngineBroker", "Timing", "connect"]

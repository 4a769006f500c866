"""How long partitions stay unread during a consumer group's rebalance: a study of group protocols."""

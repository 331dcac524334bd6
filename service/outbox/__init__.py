"""Messages to the outside: what is in the outbox goes to webhooks and MQTT brokers, at least once."""

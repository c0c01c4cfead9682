"""The embedded base model: its weights, and the program that makes them (`pretrain`)."""

"""What combiners keep from step to step: tables by task, counters, randomness, in parts that can be saved."""

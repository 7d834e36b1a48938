# Names for the contributors' tasks; what they do is in xtask/.

# List the tasks
default:
    @just --list

# Install, build and start what is needed, then run all tests
test *words:
    cargo xtask test {{words}}

# What CI runs
ci:
    cargo xtask ci

# Formatting, lints, rules; writes nothing
verify:
    cargo xtask verify

# Format and mend what the lints can mend
fix:
    cargo xtask fix

# Build the stand-in images of the tests
images:
    cargo xtask images

# Print the figures of docs/performance.md as measured here
bench suite="local" *options:
    cargo xtask bench {{suite}} {{options}}

# A cluster of real processes that are killed, stopped and cut off
chaos *options:
    cargo xtask chaos {{options}}

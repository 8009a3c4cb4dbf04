"""The output of a job: two files that one shim writes and any number of followers read."""

"""Generated from ``proto/jobworker/v1/job_worker.proto`` by ``script/generate``; never edited."""

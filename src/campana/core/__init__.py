"""The engine: keys, store, plan, runner. It knows nothing of models; stages bring the work, executors the processes."""

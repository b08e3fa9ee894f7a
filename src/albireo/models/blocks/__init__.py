"""The parts that graphs of models are built of: functions that add nodes, shared by families."""

"""AWS Batch: multi-node parallel jobs through boto3, and EventBridge schedules for commands."""

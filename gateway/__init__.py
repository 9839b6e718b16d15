"""The request plane: takes requests, holds, dispatches and retries them, and reports the load."""

"""Types of our custom resources and of the few core kinds we read, their schemas and manifests."""

"""What the integration tests stand on: servers, mounts, trees."""

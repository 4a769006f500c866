"""Tests: unit tests are pure, integration tests use real servers, acceptance tests run real processes."""

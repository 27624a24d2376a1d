"""Asyncio client for 302.AI's veo3-pro video generation."""

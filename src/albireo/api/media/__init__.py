"""What in prompts is no text: pictures, sounds and videos, in their places, and the towers that read them."""

"""What stands between a user's call and the link: queues that outlive a link, and the waiting at them."""

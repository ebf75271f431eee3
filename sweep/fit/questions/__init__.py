"""Questions of the papers, beside the optimal run at a budget: what an improvement takes, and where given models stand."""

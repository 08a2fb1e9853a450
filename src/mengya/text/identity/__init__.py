"""Who a model says it is: questions, the names of well-known assistants, and what an answer claims."""

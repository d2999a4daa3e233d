"""The OpenVINO engine's child: two processes between which a socket runs.

    parent (openvino.py) -- one line of JSON --> worker.py  -- frames (link.py) --> front.py -- HTTP --> adapters
                                                 steps the pipeline                 the OpenAI protocol

They are two because a step of the pipeline holds Python's interpreter lock from its begin to its end, 20-500 ms: in one
process every refusal, health check and tokenisation would wait for it, and every piece of text would make it wait.
"""

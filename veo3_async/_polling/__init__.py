"""The polling loop and its watchers.

The words for an end, one for each thing that can happen:

============  ========================================================================
finish        an id of one watch gets its final transition; or a watch has no ids left
expire        the timeout of a watch is over: its unfinished ids finish with an error
drop          an id is removed from a watch or the schedule, without a transition
fail          an error ends every watch of a client; polling can begin anew
close         the user ends a watch or a client
abandon       a watch was garbage-collected: its ids are dropped
stop          a loop or its workers take nothing more on
acknowledge   the user has dealt with a final transition, so the journal forgets the task
============  ========================================================================
"""

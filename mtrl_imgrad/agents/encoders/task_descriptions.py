"""Descriptions of Meta-World's fifty tasks, a sentence each.

``task_embeddings.npz`` holds their sentence embeddings. After a change run ``tools/make_task_embeddings.py``; a test
holds the file against the sentences.
"""

from __future__ import annotations

__all__ = ["TASK_DESCRIPTIONS"]

TASK_DESCRIPTIONS: dict[str, str] = {
    "assembly-v3": "Grasp the ring by its handle, carry it over to the upright peg and drop it around the peg.",
    "basketball-v3": "Take hold of the basketball, lift it above the hoop and let it fall through.",
    "bin-picking-v3": "Take the block out of the one bin and put it down in the bin next to it.",
    "box-close-v3": "Grasp the lid by its knob and set it on top of the open box.",
    "button-press-topdown-v3": "Come from above and press the button down into its housing.",
    "button-press-topdown-wall-v3": "Reach over the wall and press the button behind it down from above.",
    "button-press-v3": "Press the button on the front of the box horizontally inwards.",
    "button-press-wall-v3": "Get around the wall and press the button behind it horizontally inwards.",
    "coffee-button-v3": "Press the button of the coffee machine.",
    "coffee-pull-v3": "Hold the mug and pull it away from the coffee machine to the goal.",
    "coffee-push-v3": "Push the mug under the spout of the coffee machine.",
    "dial-turn-v3": "Turn the dial by half a rotation.",
    "disassemble-v3": "Grasp the ring by its handle and lift it off the upright peg.",
    "door-close-v3": "Push the open door on its hinge until it is shut.",
    "door-lock-v3": "Lock the door by turning the lock downwards.",
    "door-open-v3": "Hook the handle of the door and pull the door open on its hinge.",
    "door-unlock-v3": "Unlock the door by turning the lock back to the side.",
    "hand-insert-v3": "Put the gripper with the block into the hole in the table.",
    "drawer-close-v3": "Push the open drawer back into its cabinet.",
    "drawer-open-v3": "Hook the handle of the drawer and pull the drawer out of its cabinet.",
    "faucet-open-v3": "Open the faucet by turning its handle counter-clockwise.",
    "faucet-close-v3": "Close the faucet by turning its handle clockwise.",
    "hammer-v3": "Pick up the hammer and drive the nail into the wall with it.",
    "handle-press-side-v3": "Press the handle down, which sticks out sideways.",
    "handle-press-v3": "Press the handle down, which sticks out to the front.",
    "handle-pull-side-v3": "Pull the handle up, which sticks out sideways.",
    "handle-pull-v3": "Pull the handle up, which sticks out to the front.",
    "lever-pull-v3": "Pull the lever up until it stands vertically.",
    "pick-place-wall-v3": "Pick up the puck, carry it over the wall and bring it to the goal behind.",
    "pick-out-of-hole-v3": "Pick the puck up out of the hole and bring it to the goal.",
    "pick-place-v3": "Pick up the puck and carry it to the goal in the air.",
    "plate-slide-v3": "Slide the plate forwards into the cabinet.",
    "plate-slide-side-v3": "Slide the plate sideways into the cabinet.",
    "plate-slide-back-v3": "Slide the plate backwards out of the cabinet.",
    "plate-slide-back-side-v3": "Slide the plate out of the cabinet sideways.",
    "peg-insert-side-v3": "Grasp the peg and push it sideways into the hole of the block.",
    "peg-unplug-side-v3": "Grasp the peg and pull it sideways out of the hole of the block.",
    "soccer-v3": "Kick the ball into the soccer goal.",
    "stick-push-v3": "Pick up the stick and push the thermos to the goal with it.",
    "stick-pull-v3": "Pick up the stick, hook the thermos with it and pull the thermos to the goal.",
    "push-v3": "Push the puck over the table to the goal.",
    "push-wall-v3": "Push the puck around the wall to the goal behind it.",
    "push-back-v3": "Pull the puck over the table back towards the robot to the goal.",
    "reach-v3": "Move the gripper to the goal position in the air.",
    "reach-wall-v3": "Move the gripper past the wall to the goal position.",
    "shelf-place-v3": "Pick up the block and put it down on the shelf.",
    "sweep-into-v3": "Sweep the block over the table into the hole.",
    "sweep-v3": "Sweep the block off the edge of the table.",
    "window-open-v3": "Push the handle of the window sideways to open the sliding window.",
    "window-close-v3": "Push the handle of the window back sideways to close the sliding window.",
}
"""By task name, in the order of `mtrl_imgrad.envs.task_sets.METAWORLD_TASKS`."""

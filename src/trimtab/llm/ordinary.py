"""Ordinary messages that need no tool: what the router is told is *not* a call.

Greetings, thanks, opinions, requests to write or explain, general knowledge, questions about someone's own documents.
They are embedded once and compared with each message; a message that is nearer to these than to any tool is answered,
not routed. An ordinary message that a tool's description plainly covers (``"What is the capital of Kenya?"`` beside a
tool `get_capital`) is left out for that tool by the router.
"""

from __future__ import annotations

_LINES = """
Hello
Hi there, how are you doing?
Hey, good evening
Nice to meet you
Goodbye, see you later
Thanks a lot
Thank you, that is all
Okay, got it
Yes
No, that's wrong
Never mind
I don't understand your answer
Can you say that again in simpler words?
What do you mean by that?
Are you sure about that?
Please continue
What are you?
What is your name?
Are you a robot or a person?
Who created you?
What can you help me with?
Which languages do you speak?
How do you work?
Do you have feelings?
What do you think about art?
Do you like music?
I am bored
I'm tired and stressed today
My name is Alex and I live in the countryside
I am 40 years old and have two children
I love hiking in the mountains
Tell me something funny
Tell me a story about a wizard
Tell me an interesting fact
Write a poem about love
Write a short story about a robot
Write an essay on friendship
Write a letter of complaint to my landlord
Write a haiku about spring
Write a song about the ocean
Draft a job application for a nurse
Compose a birthday message for my sister
Rewrite this paragraph so that it sounds friendlier
Make this sentence shorter: we would like to inform you that the office is closed
Correct the spelling in this sentence: I recieved you're letter
Summarise what we have said so far
Give me ideas for a birthday present
Suggest a name for a new dog
What should I cook with leftover rice?
How can I sleep better?
Give me advice on saving money
How do I become more confident?
What are good habits for studying?
Give me five tips for public speaking
List the pros and cons of working from home
Explain how a car engine works
Explain gravity to a five year old
How do computers store data?
How does the immune system work?
How do birds fly?
Why do we dream?
Why is the grass green?
Why does ice float?
What causes earthquakes?
What is democracy?
What is artificial intelligence?
What is a black hole?
What is inflation in economics?
What is love?
What is a good leader?
What does the word serendipity mean?
What's the difference between a lake and a sea?
What is the difference between climate change and global warming?
What is the capital of Italy?
What is the capital of Australia?
What is the tallest mountain in the world?
What is the longest river in Africa?
What is the population of Canada?
How many planets are there in the solar system?
How many bones does a human body have?
How many days are in a leap year?
How fast does light travel?
How hot is the surface of the sun?
At what temperature does water freeze?
How far away is Mars?
Who wrote Hamlet?
Who painted the Starry Night?
Who discovered America?
Who invented the printing press?
Who was the first president of the United States?
Who was Napoleon?
When did the Second World War end?
When was the Berlin Wall built?
What happened in 1969?
Where do penguins live?
Is chocolate bad for you?
Is it better to run or to swim?
Which is better, coffee or tea?
Can dogs eat grapes?
Who is the main character of Moby Dick?
What is time management?
What is the history of the internet?
Explain the rules of chess
How do I learn a new language?
How do I write a good email?
How do web pages work?
What is a calculator used for?
How does a clock work?
Explain how weather forecasts are made
What is an encyclopedia?
What is mathematics?
Write a Python function that reverses a list
What is object oriented programming?
Explain what this code does: for i in range(10): print(i)
Why does my program crash with a null pointer?
What does the employee handbook say about parental leave?
According to the manual, how do I replace the filter?
What is our refund policy?
How many days of holiday do we get?
Who is responsible for security in our company?
What does section 3 of the report conclude?
How long is the guarantee of the machine?
What are the opening hours of the office?
What does the contract say about termination?
Which settings does the configuration file have?
What were the results of the experiment?
What is the maximum load of the crane?
What did we agree on in the last meeting?
How do I install the software?
What does error code 17 mean?
Where is the emergency exit according to the plan?
What is the deadline of the project?
Good night
How is it going?
You're welcome
That makes sense
I see, interesting
Hmm, let me think about that
Wait, that is not what I asked
Forget it
I have a question
Let's talk about something else
Just say hello
What did you say before?
Why did you say that?
What are your limits?
Can you think?
Where do you come from?
Do you like winter?
What do you like to do?
I'm 25 years old and I work as a plumber
I have three sisters and a brother
My favourite number is nine
I had a long day at work
It is so hot today
We went to the beach yesterday
My computer is slow
I need some motivation
Tell me about yourself
Tell me about the Roman Empire
Tell me about your day
Give me a list of synonyms for happy
Write a limerick about a frog
Write a product description for a lamp
Write three sentences about trains
Write a speech for a wedding
Write a conclusion for my essay on time travel
Fix the punctuation: hello how are you
Is this sentence correct: She don't like it
What is the plural of mouse?
What is the past tense of go?
What rhymes with orange?
How do you spell necessary?
Turn this into bullet points: we sell apples, pears and plums
Paraphrase: the meeting was very long
What is a web page?
What is an address?
What is a forecast?
What is money?
What is a stock?
What is a reminder?
What is the difference between a search engine and a browser?
What is the difference between mass and weight?
What is the difference between a recipe and a formula?
Explain how calculators work
Explain what a time zone is
How does email work?
How do thermostats work?
How is rain formed?
Why is it cold in winter?
Why does music make us happy?
Who invented the clock?
Who invented the calculator?
Who founded Wikipedia?
Who discovered electricity?
Who was Cleopatra?
Who won the world cup in 1998?
When was the telescope invented?
When did dinosaurs live?
How many countries are there in Europe?
How many legs does a spider have?
How old is the universe?
How long do elephants live?
How deep is the ocean?
How heavy is a blue whale?
What is the largest ocean?
What is the fastest animal?
What is the chemical symbol of gold?
What is the currency of Japan?
What language is spoken in Brazil?
Name three fruits
Name a famous painter
Is fish healthy?
Is the earth round?
Is it rude to be late?
Should I learn to play the piano?
What book would you recommend?
What should I wear to a wedding?
How do I get rid of a headache?
How do I tie a tie?
How should I design a website?
How should I start a speech?
Which page describes the warranty?
Which chapter is about safety?
What does the policy say about working from home?
What does the guide say about passwords?
What does the brochure say about prices?
What does the lease say about pets?
Who has to approve expenses?
Who signs the purchase orders?
Who do I call when the machine stops?
When is the invoice due according to the agreement?
When does the training start?
What did the board decide?
What did the survey find?
What was the budget for last year?
How often must the oil be changed?
How do I charge the battery of the device?
How do I connect the sensor?
How many users does the licence allow?
What is the serial number format?
What is the name of the project manager?
What temperature can the device stand?
What are the payment terms?
What are the requirements for the certificate?
Summarise the main points of the document
"""

ORDINARY: tuple[str, ...] = tuple(line.strip() for line in _LINES.splitlines() if line.strip())
